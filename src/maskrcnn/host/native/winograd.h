/* Winograd convolutions of 3 x 3 kernels at stride 1, compiled once for each instruction set. A VALUE holds
   VALUES_OF_POINT of the numbers that are multiplied. */

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define FN(name) JOIN(name, ISA)

/* Winograd's F(4 x 4, 3 x 3) on the points 0, +-sqrt(1/2), +-sqrt(2) and infinity (Lavin and Gray 2016; these
   points leave a quarter of the rounding error of 0, +-1, +-2): the 6 x 6 cells under 4 x 4 outputs. */
static inline __attribute__((always_inline)) void FN(six)(vec *d, long step) {
    vec d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step];
    vec even = d4 - B2 * d2, odd = A1 * (d3 - B2 * d1), even2 = d4 - A2 * d2, odd2 = B1 * (d3 - A2 * d1);
    d[0] += d4 - (A2 + B2) * d2;
    d[step] = even + odd;
    d[2 * step] = even - odd;
    d[3 * step] = even2 + odd2;
    d[4 * step] = even2 - odd2;
    d[5 * step] += d1 - (A2 + B2) * d3;
}

static inline __attribute__((always_inline)) void FN(four)(const vec *m, vec *out, long step, long step_out) {
    vec even = m[step] + m[2 * step], odd = m[step] - m[2 * step];
    vec even2 = m[3 * step] + m[4 * step], odd2 = m[3 * step] - m[4 * step];
    out[0] = m[0] + even + even2;
    out[step_out] = A1 * odd + B1 * odd2;
    out[2 * step_out] = A2 * even + B2 * even2;
    out[3 * step_out] = A3 * odd + B3 * odd2 + m[5 * step];
}

static void FN(into_points)(const struct conv *conv, struct place place, VALUE *points, long step) {
    const void *cells[36];
    for (int y = 0; y < 6; y++)
        for (int x = 0; x < 6; x++)
            cells[6 * y + x] = cell_at(conv, place.image, 4 * place.y + y - 1, 4 * place.x + x - 1);
    for (long k = 0; k < conv->depth; k += 16) {
        vec d[36];
#pragma GCC unroll 36
        for (int i = 0; i < 36; i++) d[i] = FN(load)(cells[i], k, conv->half_in);
#pragma GCC unroll 6
        for (int x = 0; x < 6; x++) FN(six)(d + x, 6);
#pragma GCC unroll 6
        for (int y = 0; y < 6; y++) FN(six)(d + 6 * y, 1);
#pragma GCC unroll 36
        for (int i = 0; i < 36; i++) FN(store)(points + i * step, k, d[i], VALUES_OF_POINT == 2);
    }
}

static void FN(from_points)(const struct conv *conv, struct place place, const float *points, long step) {
    long rows = conv->out_height - 4 * place.y, columns = conv->out_width - 4 * place.x;
    long first = (place.image * conv->out_height + 4 * place.y) * conv->out_width + 4 * place.x;
    for (int j = 0; j < PANEL; j += 16) {
        vec m[36], half[24], y[16];
#pragma GCC unroll 36
        for (int i = 0; i < 36; i++) m[i] = *(const vec *)(points + i * step + j);
#pragma GCC unroll 6
        for (int x = 0; x < 6; x++) FN(four)(m + x, half + x, 6, 6);
#pragma GCC unroll 4
        for (int x = 0; x < 4; x++) FN(four)(half + 6 * x, y + 4 * x, 1, 1);
        for (int row = 0; row < 4 && row < rows; row++)
            for (int column = 0; column < 4 && column < columns; column++) {
                long cell = first + row * conv->out_width + column;
                FN(finish)(conv, y[4 * row + column], cell, residual_at(conv, cell), place.panel + j);
            }
    }
}

/* from, to: numbers of 4 x 4 tiles of outputs. */
static void FN(winograd)(const struct conv *conv, long from, long to, float *scratch) {
    long count = (to - from + ROWS - 1) / ROWS * ROWS, across = (conv->out_width + 3) / 4;
    long down = (conv->out_height + 3) / 4, depth = conv->depth / VALUES_OF_POINT, step = count * depth;
    VALUE *values = (VALUE *)scratch;
    float *sums = scratch + 36 * step;
    struct place places[MOST_TILES];
    for (long number = 0; number < count; number++) {
        long tile = number < to - from ? from + number : to - 1;
        places[number] = (struct place){tile / (across * down), tile / across % down, tile % across, 0};
        FN(into_points)(conv, places[number], values + number * depth, step);
    }
    for (long column = 0; column < conv->columns; column += PANEL) {
        for (int i = 0; i < 36; i++) {
            const VALUE *panel = (const VALUE *)conv->weights + (i * conv->columns + column) * depth;
            for (long number = 0; number < count; number += ROWS) {
                const VALUE *rows[ROWS];
                for (int row = 0; row < ROWS; row++) rows[row] = values + i * step + (number + row) * depth;
                FN(tiles)(rows, 1, 0, depth, panel, 0, sums + (i * count + number) * PANEL, 1);
            }
        }
        for (long number = 0; number < to - from; number++) {
            places[number].panel = column;
            FN(from_points)(conv, places[number], sums + number * PANEL, count * PANEL);
        }
    }
}

#undef FN
#undef JOIN
#undef JOIN_
