/* RoIAlign and what the mask head computes for a detection's own class, compiled once for each instruction
   set. */

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define FN(name) JOIN(name, ISA)

/* Adds up for each wanted bin of one box the cells under it: rows and columns as `axis` lists them. */
static void FN(pool_box)(const struct pool *pool, const void *level, long width, const struct share *down,
                         const struct share *across, void *out) {
    long bins = pool->bins, most = pool->most * pool->step, depth = pool->depth;
    for (long y = 0; y < bins; y++)
        for (long x = 0; x < bins; x++)
            for (long k = 0; k < depth; k += 64) {
                long vectors = depth - k < 64 ? (depth - k) / 16 : 4;
                vec sum[4] = {{0}, {0}, {0}, {0}};
                for (const struct share *row = down + y * most; row->weight != 0; row++)
                    for (const struct share *column = across + x * most; column->weight != 0; column++) {
                        long place = (row->cell * width + column->cell) * pool->cell_size + k;
                        float weight = row->weight * column->weight;
                        if (vectors == 4)
#pragma GCC unroll 4
                            for (int j = 0; j < 4; j++) sum[j] += weight * FN(load)(level, place + 16 * j, pool->half);
                        else
                            for (int j = 0; j < vectors; j++)
                                sum[j] += weight * FN(load)(level, place + 16 * j, pool->half);
                    }
                for (int j = 0; j < vectors; j++) {
                    if (pool->bias) sum[j] += *(const vec *)(pool->bias + k + 16 * j);
                    if (pool->relu) sum[j] = (vec)((ivec)sum[j] & (sum[j] > (vec){0}));
                    FN(store)(out, (y * bins + x) * depth + k + 16 * j, sum[j], pool->half);
                }
            }
}

/* sums (cells,): each cell's values times the weights of one class. */
static void FN(project)(const void *cells, int half, long count, long depth, const float *weights, float bias,
                        float *sums) {
    for (long i = 0; i < count; i++) {
        vec sum = {0};
        for (long k = 0; k < depth; k += 16) 
            sum += FN(load)(cells, i * depth + k, half) * *(const vec *)(weights + k);
        float total = bias;
        for (int j = 0; j < 16; j++) total += sum[j];
        sums[i] = total;
    }
}

/* means (depth,) of `count` cells, of the same kind. */
static void FN(average)(const void *cells, int half, long count, long depth, void *means) {
    for (long k = 0; k < depth; k += 16) {
        vec sum = {0};
        for (long i = 0; i < count; i++) sum += FN(load)(cells, i * depth + k, half);
        FN(store)(means, k, sum / (float)count, half);
    }
}

/* Largest of the 3 x 3 cells around every second one; what is not there counts as 0. */
static void FN(pool_rows)(const struct conv *conv, long from, long to) {
    for (long cell = from; cell < to; cell++) {
        struct place place = place_of(conv, cell);
        const void *cells[9];
        for (int i = 0; i < 9; i++)
            cells[i] = cell_at(conv, place.image, 2 * place.y + conv->tap_y[i], 2 * place.x + conv->tap_x[i]);
        for (long k = 0; k < conv->depth; k += 16) {
            vec most = FN(load)(cells[0], k, conv->half_in);
#pragma GCC unroll 8
            for (int i = 1; i < 9; i++) {
                vec other = FN(load)(cells[i], k, conv->half_in);
                ivec larger = other > most;
                most = (vec)(((ivec)other & larger) | ((ivec)most & ~larger));
            }
            FN(store)(conv->out, cell * conv->out_size + k, most, conv->half_out);
        }
    }
}

#undef FN
#undef JOIN
#undef JOIN_
