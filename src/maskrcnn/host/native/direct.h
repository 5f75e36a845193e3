/* Convolutions as sums over the taps of their kernels, compiled once for each instruction set and kind of value.

   A VALUE is what MULTIPLY takes from a cell at once: a float32, or two bfloat16. ISA names the set; a register
   tile is ROWS cells times 16 * VECTORS outputs. Weights lie in panels of 64 outputs, (panels, taps, depth, 64),
   whatever the set, so that packing does not depend on it. */

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define FN(name) JOIN(name, ISA)

/* rows (taps, ROWS) point at cells, from whose number `first` on `depth` values are multiplied by panel. */
static inline __attribute__((always_inline)) void FN(tile)(const VALUE *const *rows, long taps, long first,
                                                           long depth, const VALUE *panel, long tap_size,
                                                           float *sums, int begin) {
    vec sum[ROWS][VECTORS];
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 4
        for (int j = 0; j < VECTORS; j++)
            sum[i][j] = begin ? (vec){0} : *(const vec *)(sums + i * PANEL + 16 * j);
    for (long tap = 0; tap < taps; tap++, rows += ROWS, panel += tap_size) {
        const VALUE *row[ROWS];
#pragma GCC unroll 16
        for (int i = 0; i < ROWS; i++) row[i] = rows[i] + first;
        for (long k = 0; k < depth; k++) {
            vec weight[VECTORS];
#pragma GCC unroll 4
            for (int j = 0; j < VECTORS; j++) weight[j] = *(const vec *)(panel + k * PANEL + 16 * j);
#pragma GCC unroll 16
            for (int i = 0; i < ROWS; i++) {
                VALUE value = row[i][k];
#pragma GCC unroll 4
                for (int j = 0; j < VECTORS; j++) sum[i][j] = MULTIPLY(sum[i][j], value, weight[j]);
            }
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 4
        for (int j = 0; j < VECTORS; j++) *(vec *)(sums + i * PANEL + 16 * j) = sum[i][j];
}

/* One tile of PANEL outputs; narrower register tiles go over it in steps. */
static void FN(tiles)(const VALUE *const *rows, long taps, long first, long depth, const VALUE *panel,
                      long tap_size, float *sums, int begin) {
    for (int j = 0; j < PANEL; j += 16 * VECTORS)
        FN(tile)(rows, taps, first, depth, panel + j, tap_size, sums + j, begin);
}

#ifdef BYTES
/* A cell's values as bytes from 0 to 255, those of a cell with values below 0 around 128. */
static inline struct scaled FN(to_bytes)(const void *cell, long depth, int half, uint8_t *bytes) {
    vec most = {0}, least = {0};
    for (long k = 0; k < depth; k += 16) {
        vec value = FN(load)(cell, k, half);
        most = (vec)_mm512_max_ps((__m512)most, (__m512)value);
        least = (vec)_mm512_min_ps((__m512)least, (__m512)value);
    }
    float high = _mm512_reduce_max_ps((__m512)most), low = _mm512_reduce_min_ps((__m512)least);
    int32_t middle = low < 0 ? 128 : 0;
    float step = middle ? (high > -low ? high : -low) / 127 : high / 255, rate = step > 0 ? 1 / step : 0;
    for (long k = 0; k < depth; k += 16) {
        ivec whole = __builtin_convertvector(FN(load)(cell, k, half) * rate + ((float)middle + 0.5f), ivec);
        *(bvec *)(bytes + k) = __builtin_convertvector(whole, bvec);
    }
    return (struct scaled){step, middle};
}

/* Sums of products of bytes as what they stand for. */
static inline vec FN(of_bytes)(const struct conv *conv, vec sum, struct scaled scaled, long column) {
    ivec whole = (ivec)sum - *(const ivec *)(conv->totals + column) * scaled.middle;
    return __builtin_convertvector(whole, vec) * (*(const vec *)(conv->rates + column) * scaled.step);
}
#endif

/* Sums over taps straight from the map, for any kernel, stride and dilation. */
static void FN(direct)(const struct conv *conv, long from, long to, float *scratch) {
    long count = (to - from + ROWS - 1) / ROWS * ROWS, together = conv->depth < CHUNK ? CHUNK / conv->depth : 1;
    long tap_size = conv->depth * PANEL;
    float *sums = scratch;
    const VALUE **rows = (const VALUE **)(scratch + count * PANEL);
    for (long number = 0; number < count; number++) {
        struct place place = place_of(conv, number < to - from ? from + number : to - 1);
        const VALUE **here = rows + number / ROWS * ROWS * conv->taps + number % ROWS;
        for (long tap = 0; tap < conv->taps; tap++)
            here[tap * ROWS] = cell_at(conv, place.image, place.y * conv->stride + conv->tap_y[tap],
                                       place.x * conv->stride + conv->tap_x[tap]);
    }
#ifdef BYTES
    struct scaled *scaled = (struct scaled *)(rows + count);
    uint8_t *bytes = (uint8_t *)(scaled + count);
    for (long number = 0; number < count; number++, bytes += 4 * conv->depth) {
        scaled[number] = FN(to_bytes)(rows[number], 4 * conv->depth, conv->half_in, bytes);
        rows[number] = (const VALUE *)bytes;
    }
#endif
    for (long column = 0; column < conv->columns; column += PANEL) {
        const VALUE *panel = (const VALUE *)conv->weights + column * conv->taps * conv->depth;
        for (long tap = 0; tap < conv->taps; tap += together) {
            long taps = conv->taps - tap < together ? conv->taps - tap : together;
            for (long first = 0; first < conv->depth; first += CHUNK) {
                long depth = conv->depth - first < CHUNK ? conv->depth - first : CHUNK;
                const VALUE *part = panel + tap * tap_size + first * PANEL;
                for (long number = 0; number < count; number += ROWS)
                    FN(tiles)(rows + number * conv->taps + tap * ROWS, taps, first, depth, part, tap_size,
                              sums + number * PANEL, tap == 0 && first == 0);
            }
        }
        for (long cell = from; cell < to; cell++) {
            long beside = residual_at(conv, cell);
            for (int j = 0; j < PANEL; j += 16) {
                vec sum = *(const vec *)(sums + (cell - from) * PANEL + j);
#ifdef BYTES
                sum = FN(of_bytes)(conv, sum, scaled[cell - from], column + j);
#endif
                FN(finish)(conv, sum, cell, beside, column + j);
            }
        }
    }
}

#undef FN
#undef JOIN
#undef JOIN_
