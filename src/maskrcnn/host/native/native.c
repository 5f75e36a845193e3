/* The detector's inner loops for a CPU. Maps are float32 (images, height, width, channels).

   Every function that takes `next` is called by each thread with the same arguments but its own scratch, and
   the threads take blocks of the work in turn until none is left. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#define PUBLIC __declspec(dllexport)
#else
#define PUBLIC __attribute__((visibility("default")))
#endif

#define PANEL 64       /* outputs whose weights lie together */
#define CHUNK 512      /* values multiplied before the next panel's weights must come into the cache */
#define MOST_TILES 96  /* Winograd tiles at a time */
#define LESS(a, b) ((a) < (b) ? (a) : (b))
#define MORE(a, b) ((a) > (b) ? (a) : (b))
#define A1 0.70710678118654752f
#define A2 0.5f
#define A3 0.35355339059327376f
#define B1 1.41421356237309505f
#define B2 2.0f
#define B3 2.82842712474619010f

typedef float vec __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t uvec __attribute__((vector_size(64)));
typedef uint16_t hvec __attribute__((vector_size(32), aligned(2), may_alias)); /* bfloat16 */
typedef uint8_t bvec __attribute__((vector_size(16), aligned(1), may_alias));

struct conv {
    const void *in;
    const void *zeros; /* a cell outside the map */
    const void *weights;
    const float *bias;
    const void *residual; /* added before relu; of half the size where shift is 1 */
    void *out;
    const int32_t *tap_y, *tap_x; /* of the cell under each tap, counted from output * stride */
    const float *rates;           /* of int8 weights: what 1 stands for in each output */
    const int32_t *totals;        /* of int8 weights: their sum in each output */
    int64_t images, height, width, image_size, row_size, cell_size; /* sizes in values */
    int64_t out_height, out_width, columns, out_size, residual_size; /* outputs: whole panels */
    int64_t taps, depth, stride, relu, residual_height, residual_width, shift;
    int64_t block;                    /* cells or tiles that a thread takes at a time */
    int64_t value, half_in, half_out; /* value: bytes of one; half: bfloat16, the residual like the outputs */
    int64_t kind;                     /* of the weights: 0 float32, 1 bfloat16, 2 int8 */
};

struct place {
    long image, y, x, panel;
};

/* What the bytes of a cell stand for: step * (byte - middle). */
struct scaled {
    float step;
    int32_t middle;
};

static inline struct place place_of(const struct conv *conv, long cell) {
    long area = conv->out_height * conv->out_width;
    return (struct place){cell / area, cell % area / conv->out_width, cell % conv->out_width, 0};
}

static inline const void *cell_at(const struct conv *conv, long image, long y, long x) {
    if (y < 0 || x < 0 || y >= conv->height || x >= conv->width) return conv->zeros;
    long place = image * conv->image_size + y * conv->row_size + x * conv->cell_size;
    return (const char *)conv->in + place * conv->value;
}

/* Where the residual of an output cell begins. */
static inline long residual_at(const struct conv *conv, long cell) {
    if (!conv->residual || !conv->shift) return cell * conv->residual_size;
    struct place place = place_of(conv, cell);
    long row = place.image * conv->residual_height + (place.y >> 1);
    return (row * conv->residual_width + (place.x >> 1)) * conv->residual_size;
}

/* What one cell along an axis gives to a bin; a list ends with weight 0. */
struct share {
    int64_t cell;
    float weight;
};

struct pool {
    const void *const *levels;
    const int64_t *sizes; /* (levels, 2): height and width */
    const float *scales;
    const float *boxes; /* (count, 4) in network pixels */
    const int64_t *level_of, *image_of;
    void *out; /* (count, bins, bins, depth) */
    int64_t count, depth, cell_size, side, samples, aligned, most, block, half;
    const float *bias;       /* (depth,), added to every bin; may be missing */
    int64_t relu, step, bins; /* of side * side bins every step-th along both axes is wanted: bins * bins */
};

#define VALUE float
#define VALUES_OF_POINT 1
#define MULTIPLY(sum, value, weight) ((sum) + (value) * (weight))
#define ISA plain
#define ROWS 6
#define VECTORS 1
#include "set.h"
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define X86 1
#include <immintrin.h>
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#undef ISA
#define ISA avx2
#include "set.h"
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,prefer-vector-width=512")
#undef ISA
#undef VECTORS
#define ISA avx512
#define VECTORS 4
#include "set.h"
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512bf16,avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,prefer-vector-width=512")
#undef ISA
#undef VALUE
#undef VALUES_OF_POINT
#undef MULTIPLY
#define ISA bf16
#define VALUE int32_t
#define MULTIPLY(sum, value, weight) \
    (vec) _mm512_dpbf16_ps((__m512)(sum), (__m512bh)_mm512_set1_epi32(value), (__m512bh)(weight))
#include "lanes.h"
#include "direct.h"
#define VALUES_OF_POINT 2
#include "winograd.h"
#undef VALUES_OF_POINT
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512vnni,avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,prefer-vector-width=512")
#undef ISA
#undef MULTIPLY
#define ISA int8
#define BYTES
#define MULTIPLY(sum, value, weight) \
    (vec) _mm512_dpbusd_epi32((__m512i)(sum), _mm512_set1_epi32(value), (__m512i)(weight))
#include "lanes.h"
#include "direct.h"
#pragma GCC pop_options
#endif

#ifdef X86
#define ALL(name) {name##_avx512, name##_avx2, name##_plain}
#else
#define ALL(name) {name##_plain, name##_plain, name##_plain}
#endif

/* The sets of ALL that this processor has. */
static int has_set(int set) {
#ifdef X86
    if (set == 0)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (set == 1) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return set == 2;
}

static int wanted = -1;

/* Take a set instead of the best one, which is -1: 0 where this processor lacks it. */
PUBLIC int maskrcnn_use(int set) {
    if (set >= 0 && !has_set(set)) return 0;
    wanted = set;
    return 1;
}

static int best_set(void) {
    if (wanted >= 0) return wanted;
    return has_set(0) ? 0 : has_set(1) ? 1 : 2;
}

/* Whether convolutions take weights of that kind. */
PUBLIC int maskrcnn_multiplies(int kind) {
#ifdef X86
    if (kind == 1) return best_set() == 0 && __builtin_cpu_supports("avx512bf16");
    if (kind == 2) return best_set() == 0 && __builtin_cpu_supports("avx512vnni");
#endif
    return kind == 0;
}

PUBLIC int maskrcnn_instructions(void) { return best_set(); }

/* The next block of `count`, or 0. */
static int take(int64_t *next, long block, long count, long *from, long *to) {
    if (block < 1) block = 1;
    *from = __atomic_fetch_add(next, block, __ATOMIC_RELAXED);
    *to = *from + block < count ? *from + block : count;
    return *from < count;
}

typedef void (*cells_of)(const struct conv *, long, long, float *);

PUBLIC void maskrcnn_direct(const struct conv *conv, int64_t *next, float *scratch) {
    static const cells_of sets[] = ALL(direct);
    cells_of run = sets[best_set()];
    long from, to;
#ifdef X86
    if (conv->kind == 1) run = direct_bf16;
    if (conv->kind == 2) run = direct_int8;
#endif
    while (take(next, conv->block, conv->images * conv->out_height * conv->out_width, &from, &to))
        run(conv, from, to, scratch);
}

PUBLIC void maskrcnn_winograd(const struct conv *conv, int64_t *next, float *scratch) {
    static const cells_of sets[] = ALL(winograd);
    cells_of run = sets[best_set()];
    long from, to;
#ifdef X86
    if (conv->kind == 1) run = winograd_bf16;
#endif
    while (take(next, conv->block, conv->images * ((conv->out_height + 3) / 4) * ((conv->out_width + 3) / 4),
                &from, &to))
        run(conv, from, to, scratch);
}

PUBLIC void maskrcnn_max_pool(const struct conv *conv, int64_t *next, float *scratch) {
    static void (*const sets[])(const struct conv *, long, long) = ALL(pool_rows);
    long from, to, set = best_set();
    (void)scratch;
    while (take(next, conv->block, conv->images * conv->out_height * conv->out_width, &from, &to))
        sets[set](conv, from, to);
}

/* The cells that a bin's samples lie between along one axis, each once, in `shares` (side, most).
   Samples further than a cell outside count zero. */
static void axis(const struct pool *pool, float start, float length, long samples, long limit,
                 struct share *shares) {
    float step = length / (float)pool->side;
    for (long bin = 0; bin < pool->side; bin++) {
        struct share *list = shares + bin * pool->most;
        long used = 0;
        for (long i = 0; i < samples; i++) {
            float at = start + (float)bin * step + ((float)i + 0.5f) * step / (float)samples;
            if (!(at >= -1.0f && at <= (float)limit)) continue;
            at = at < 0 ? 0 : at > (float)(limit - 1) ? (float)(limit - 1) : at;
            long low = (long)at;
            float beyond = at - (float)low;
            for (int k = 0; k < 2; k++) {
                float weight = (k ? beyond : 1 - beyond) / (float)samples;
                if (weight == 0) continue;
                if (used && list[used - 1].cell == low + k) list[used - 1].weight += weight;
                else if (used > 1 && list[used - 2].cell == low + k) list[used - 2].weight += weight;
                else list[used++] = (struct share){low + k, weight};
            }
        }
        list[used].weight = 0;
    }
}

PUBLIC void maskrcnn_pool_levels(const struct pool *pool, int64_t *next, struct share *scratch) {
    static void (*const sets[])(const struct pool *, const void *, long, const struct share *,
                                const struct share *, void *) = ALL(pool_box);
    long from, to, set = best_set();
    struct share *across = scratch, *down = scratch + pool->side * pool->most;
    while (take(next, pool->block, pool->count, &from, &to))
        for (long i = from; i < to; i++) {
            long number = pool->level_of[i], height = pool->sizes[2 * number], width = pool->sizes[2 * number + 1];
            float corner[4], half = pool->aligned ? 0.5f : 0.0f;
            for (int k = 0; k < 4; k++) corner[k] = pool->boxes[4 * i + k] * pool->scales[number] - half;
            float wide = corner[2] - corner[0], high = corner[3] - corner[1];
            if (!pool->aligned) wide = wide < 1 ? 1 : wide, high = high < 1 ? 1 : high;
            long columns = pool->samples, rows = pool->samples;
            if (!columns) columns = (long)ceilf(wide / (float)pool->side), rows = (long)ceilf(high / (float)pool->side);
            axis(pool, corner[0], wide, columns, width, across);
            axis(pool, corner[1], high, rows, height, down);
            long value = pool->half ? 2 : 4, image = pool->image_of[i] * height * width * pool->cell_size;
            sets[set](pool, (const char *)pool->levels[number] + image * value, width, down, across,
                      (char *)pool->out + i * pool->bins * pool->bins * pool->depth * value);
        }
}

/* cells (count, size, depth), weights (classes, depth), labels (count,) -> sums (count, size). */
PUBLIC void maskrcnn_own_class(const void *cells, int half, int64_t count, int64_t size, int64_t depth,
                               const float *weights, const float *bias, const int64_t *labels, float *sums) {
    static void (*const sets[])(const void *, int, long, long, const float *, float, float *) = ALL(project);
    long set = best_set(), bytes = size * depth * (half ? 2 : 4);
    for (int64_t i = 0; i < count; i++)
        sets[set]((const char *)cells + i * bytes, half, size, depth, weights + labels[i] * depth,
                  bias[labels[i]], sums + i * size);
}

/* cells (count, size, depth) -> means (count, depth), of the same kind. */
PUBLIC void maskrcnn_mean(const void *cells, int half, int64_t count, int64_t size, int64_t depth,
                          void *means) {
    static void (*const sets[])(const void *, int, long, long, void *) = ALL(average);
    long set = best_set(), value = half ? 2 : 4;
    for (int64_t i = 0; i < count; i++)
        sets[set]((const char *)cells + i * size * depth * value, half, size, depth,
                  (char *)means + i * depth * value);
}

/* Greedy NMS of boxes (count, 4) that are sorted, best first: kept (count,) is set to 1 or 0, and their number
   is returned. A box goes where its IoU with a better kept one of its group is above iou. */
PUBLIC int64_t maskrcnn_nms(const float *boxes, const int64_t *groups, int64_t count, float iou, int64_t most,
                            float *scratch, uint8_t *kept) {
    float *left = scratch, *top = left + count, *right = top + count, *bottom = right + count;
    float *area = bottom + count, *group = area + count;
    int64_t used = 0;
    memset(kept, 0, (size_t)count);
    for (int64_t i = 0; i < count && used < most; i++) {
        const float *box = boxes + 4 * i;
        float own = (box[2] - box[0]) * (box[3] - box[1]), mine = (float)groups[i];
        int covered = 0;
        for (int64_t from = 0; from < used && !covered; from += 256) {
            int64_t to = from + 256 < used ? from + 256 : used;
            for (int64_t j = from; j < to; j++) {
                float wide = LESS(box[2], right[j]) - MORE(box[0], left[j]);
                float high = LESS(box[3], bottom[j]) - MORE(box[1], top[j]);
                float both = MORE(wide, 0) * MORE(high, 0), either = own + area[j] - both;
                covered |= (group[j] == mine) & (both / MORE(either, 1e-12f) > iou);
            }
        }
        if (covered) continue;
        kept[i] = 1;
        left[used] = box[0], top[used] = box[1], right[used] = box[2], bottom[used] = box[3];
        area[used] = own, group[used] = mine;
        used++;
    }
    return used;
}

/* Windows wants it exported. */
PUBLIC void *PyInit_compiled(void) { return 0; }
