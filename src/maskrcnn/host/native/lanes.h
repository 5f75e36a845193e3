/* Sixteen values at a time, compiled once for each instruction set; `half` values are bfloat16. */

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define FN(name) JOIN(name, ISA)

static inline __attribute__((always_inline)) vec FN(load)(const void *from, long k, int half) {
    if (!half) return *(const vec *)((const float *)from + k);
    uvec bits = __builtin_convertvector(*(const hvec *)((const uint16_t *)from + k), uvec);
    return (vec)(bits << 16);
}

static inline __attribute__((always_inline)) void FN(store)(void *to, long k, vec value, int half) {
    if (!half) {
        *(vec *)((float *)to + k) = value;
        return;
    }
    uvec bits = (uvec)value;
    bits += ((bits >> 16) & 1) + 0x7fff; /* to the nearest, of two the even one */
    *(hvec *)((uint16_t *)to + k) = __builtin_convertvector(bits >> 16, hvec);
}

/* sum + bias + residual, ReLU: sixteen outputs of a cell from `column` on. */
static inline __attribute__((always_inline)) void FN(finish)(const struct conv *conv, vec sum, long cell,
                                                             long beside, long column) {
    sum += *(const vec *)(conv->bias + column);
    if (conv->residual) sum += FN(load)(conv->residual, beside + column, conv->half_out);
    if (conv->relu) sum = (vec)((ivec)sum & (sum > (vec){0}));
    FN(store)(conv->out, cell * conv->out_size + column, sum, conv->half_out);
}

#undef FN
#undef JOIN
#undef JOIN_
