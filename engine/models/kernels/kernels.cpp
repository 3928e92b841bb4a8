// The elementwise operations of a CPU training step, each fused into one pass over memory. A run
// measures them against plain torch on its machine (engine.training.autotune) and uses them where they are faster.
//
// T is float or bf16 (bfloat16, the upper half of a float); sums are kept in float. Rows are independent of
// each other, so a result depends on the thread count only where a weight's gradient is summed over rows.
// `engine.models.transformer` has the same operations in torch, the reference in the tests.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <omp.h>
#include <vector>

namespace {

struct bf16 {
    uint16_t bits;
};

inline float get(float x) { return x; }

inline float get(bf16 x) {
    const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
    float out;
    std::memcpy(&out, &bits, sizeof out);
    return out;
}

inline void put(float &to, float x) { to = x; }

inline void put(bf16 &to, float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    // Rounding would carry some NaNs over into another number.
    to.bits = static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16) | 0x40u : rounded);
}

// e^x to about 1e-7 of itself, written so that compilers vectorise it; NaN stays NaN. `x` is held within bounds.
inline float exponential(float x, float least = -87.0f, float most = 88.0f) {
    x = x < least ? least : x;
    x = x > most ? most : x;
    const float shifted = x * 1.44269504f + 12582912.0f; // adding 1.5 * 2^23 rounds to an integer
    uint32_t bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    const float whole = shifted - 12582912.0f;
    const float rest = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    float power = 1.9875691500e-4f;
    power = power * rest + 1.3981999507e-3f;
    power = power * rest + 8.3334519073e-3f;
    power = power * rest + 4.1665795894e-2f;
    power = power * rest + 1.6666665459e-1f;
    power = power * rest + 5.0000001201e-1f;
    power = power * rest * rest + rest + 1.0f;
    const uint32_t scale_bits = (bits + 127u) << 23;
    float scale;
    std::memcpy(&scale, &scale_bits, sizeof scale);
    return power * scale;
}

// Compilers work out both sides of a bound in every lane: with e^88 each would be a denormal number, which costs
// four times the whole. Beyond 60 the result is off by less than 1e-26.
inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x, -60.0f, 60.0f)); }

// Adds up what each thread found, in the order of the threads.
void sum_threads(const std::vector<float> &parts, float *out, int64_t width) {
    const int64_t threads = static_cast<int64_t>(parts.size()) / width;
    for (int64_t i = 0; i < width; ++i) {
        float total = 0.0f;
        for (int64_t thread = 0; thread < threads; ++thread) total += parts[thread * width + i];
        out[i] = total;
    }
}

template <class T>
void norm_forward(const float *x, const float *weight, T *out, float *scales, int64_t rows, int64_t width, float eps) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
        const float *from = x + row * width;
        T *to = out + row * width;
        float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
        for (int64_t i = 0; i < width; ++i) squares += from[i] * from[i];
        const float scale = 1.0f / std::sqrt(squares / width + eps);
        scales[row] = scale;
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) put(to[i], from[i] * scale * weight[i]);
    }
}

template <class T>
void norm_backward(const T *gradient, const float *x, const float *weight, const float *scales, float *dx,
                   float *dweight, int64_t rows, int64_t width) {
    std::vector<float> parts(omp_get_max_threads() * width, 0.0f);
#pragma omp parallel
    {
        float *mine = parts.data() + omp_get_thread_num() * width;
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; ++row) {
            const T *up = gradient + row * width;
            const float *from = x + row * width;
            const float scale = scales[row];
            float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
            for (int64_t i = 0; i < width; ++i) dot += get(up[i]) * weight[i] * from[i];
            const float pull = dot * scale * scale / width;
#pragma omp simd
            for (int64_t i = 0; i < width; ++i) {
                const float g = get(up[i]);
                dx[row * width + i] = scale * (g * weight[i] - from[i] * pull);
                mine[i] += g * from[i] * scale;
            }
        }
    }
    sum_threads(parts, dweight, width);
}

// The same with a frozen weight and with input and output in one format.
template <class T>
void frozen_norm_forward(const T *x, const float *weight, T *out, float *scales, int64_t rows, int64_t width,
                         float eps) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
        const T *from = x + row * width;
        T *to = out + row * width;
        float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
        for (int64_t i = 0; i < width; ++i) squares += get(from[i]) * get(from[i]);
        const float scale = 1.0f / std::sqrt(squares / width + eps);
        scales[row] = scale;
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) put(to[i], get(from[i]) * scale * weight[i]);
    }
}

template <class T>
void frozen_norm_backward(const T *gradient, const T *x, const float *weight, const float *scales, T *dx, int64_t rows,
                          int64_t width) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
        const T *up = gradient + row * width;
        const T *from = x + row * width;
        const float scale = scales[row];
        float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
        for (int64_t i = 0; i < width; ++i) dot += get(up[i]) * weight[i] * get(from[i]);
        const float pull = dot * scale * scale / width;
#pragma omp simd
        for (int64_t i = 0; i < width; ++i)
            put(dx[row * width + i], scale * (get(up[i]) * weight[i] - get(from[i]) * pull));
    }
}

// Heads are normalised and rotated: (batch, time, heads, width) to (batch, heads, time, width).
template <class T>
void rope_forward(const T *x, const float *weight, const float *cosine, const float *sine, T *out, float *scales,
                  int64_t batch, int64_t time, int64_t heads, int64_t width, float eps) {
    const int64_t half = width / 2;
#pragma omp parallel for schedule(static)
    for (int64_t place = 0; place < batch * time; ++place) {
        const int64_t item = place / time, at = place % time;
        const float *c = cosine + at * half, *s = sine + at * half;
        for (int64_t head = 0; head < heads; ++head) {
            const T *from = x + (place * heads + head) * width;
            T *to = out + ((item * heads + head) * time + at) * width;
            float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
            for (int64_t i = 0; i < width; ++i) squares += get(from[i]) * get(from[i]);
            const float scale = 1.0f / std::sqrt(squares / width + eps);
            scales[place * heads + head] = scale;
#pragma omp simd
            for (int64_t i = 0; i < half; ++i) {
                const float a = get(from[i]) * scale * weight[i];
                const float b = get(from[half + i]) * scale * weight[half + i];
                put(to[i], a * c[i] - b * s[i]);
                put(to[half + i], b * c[i] + a * s[i]);
            }
        }
    }
}

template <class T>
void rope_backward(const T *gradient, const T *x, const float *weight, const float *cosine, const float *sine,
                   const float *scales, T *dx, float *dweight, int64_t batch, int64_t time, int64_t heads,
                   int64_t width) {
    const int64_t half = width / 2;
    std::vector<float> parts(omp_get_max_threads() * width, 0.0f);
#pragma omp parallel
    {
        float *mine = parts.data() + omp_get_thread_num() * width;
        std::vector<float> turned(width);
#pragma omp for schedule(static)
        for (int64_t place = 0; place < batch * time; ++place) {
            const int64_t item = place / time, at = place % time;
            const float *c = cosine + at * half, *s = sine + at * half;
            for (int64_t head = 0; head < heads; ++head) {
                const T *up = gradient + ((item * heads + head) * time + at) * width;
                const T *from = x + (place * heads + head) * width;
                T *to = dx + (place * heads + head) * width;
                const float scale = scales[place * heads + head];
                float *t = turned.data();
                float dot = 0.0f;
#pragma omp simd
                for (int64_t i = 0; i < half; ++i) {
                    const float a = get(up[i]), b = get(up[half + i]);
                    t[i] = a * c[i] + b * s[i];
                    t[half + i] = b * c[i] - a * s[i];
                }
#pragma omp simd reduction(+ : dot)
                for (int64_t i = 0; i < width; ++i) dot += t[i] * weight[i] * get(from[i]);
                const float pull = dot * scale * scale / width;
#pragma omp simd
                for (int64_t i = 0; i < width; ++i) {
                    put(to[i], scale * (t[i] * weight[i] - get(from[i]) * pull));
                    mine[i] += t[i] * get(from[i]) * scale;
                }
            }
        }
    }
    sum_threads(parts, dweight, width);
}

template <class T> void swiglu_forward(const T *gate, const T *up, T *out, int64_t count) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; ++i) {
        const float g = get(gate[i]);
        put(out[i], g * sigmoid(g) * get(up[i]));
    }
}

template <class T>
void swiglu_backward(const T *gradient, const T *gate, const T *up, T *dgate, T *dup, int64_t count) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; ++i) {
        const float d = get(gradient[i]), g = get(gate[i]);
        const float open = sigmoid(g);
        put(dup[i], d * g * open);
        put(dgate[i], d * get(up[i]) * open * (1.0f + g * (1.0f - open)));
    }
}

// A random number of place `i` (the finalizer lowbias32 over a Weyl sequence).
inline uint32_t noise(uint32_t i, uint32_t seed) {
    uint32_t x = i * 0x9e3779b1u + seed;
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    return x ^ (x >> 16);
}

inline float kept(float x, uint32_t mask) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    bits &= mask;
    std::memcpy(&x, &bits, sizeof bits);
    return x;
}

inline bf16 kept(bf16 x, uint32_t mask) { return {static_cast<uint16_t>(x.bits & mask)}; }

// Elements whose random number is below `level` / 256 become 0.
template <class T> void drop(const T *x, T *out, int64_t count, int64_t seed, int64_t level) {
    const uint32_t least = static_cast<uint32_t>(level) << 24;
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; ++i)
        out[i] = kept(x[i], noise(static_cast<uint32_t>(i), static_cast<uint32_t>(seed)) < least ? 0u : ~0u);
}

// Adds the elements of `change` that the same seed keeps.
template <class T> void drop_add(const T *change, T *out, int64_t count, int64_t seed, int64_t level) {
    const uint32_t least = static_cast<uint32_t>(level) << 24;
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; ++i) {
        const uint32_t mask = noise(static_cast<uint32_t>(i), static_cast<uint32_t>(seed)) < least ? 0u : ~0u;
        put(out[i], get(out[i]) + get(kept(change[i], mask)));
    }
}

// In place on scores (heads, rows, seen): row r of a head sees its first `first + r + 1` columns.
template <class T>
void softmax_forward(T *scores, int64_t heads, int64_t rows, int64_t seen, int64_t first, float scale) {
#pragma omp parallel
    {
        std::vector<float> line(seen);
#pragma omp for schedule(static)
        for (int64_t at = 0; at < heads * rows; ++at) {
            T *row = scores + at * seen;
            const int64_t end = first + at % rows + 1;
            float most = get(row[0]) * scale, total = 0.0f;
            float *p = line.data();
#pragma omp simd reduction(max : most)
            for (int64_t i = 0; i < end; ++i) {
                p[i] = get(row[i]) * scale;
                most = p[i] > most ? p[i] : most;
            }
#pragma omp simd reduction(+ : total)
            for (int64_t i = 0; i < end; ++i) {
                p[i] = exponential(p[i] - most);
                total += p[i];
            }
            const float share = 1.0f / total;
#pragma omp simd
            for (int64_t i = 0; i < end; ++i) put(row[i], p[i] * share);
            for (int64_t i = end; i < seen; ++i) put(row[i], 0.0f);
        }
    }
}

// In place on the gradient of the probabilities, which becomes that of the products before the scale.
template <class T>
void softmax_backward(T *gradient, const T *probabilities, int64_t heads, int64_t rows, int64_t seen, int64_t first,
                      float scale) {
#pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < heads * rows; ++at) {
        T *up = gradient + at * seen;
        const T *p = probabilities + at * seen;
        const int64_t end = first + at % rows + 1;
        float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
        for (int64_t i = 0; i < end; ++i) dot += get(up[i]) * get(p[i]);
#pragma omp simd
        for (int64_t i = 0; i < end; ++i) put(up[i], scale * get(p[i]) * (get(up[i]) - dot));
        for (int64_t i = end; i < seen; ++i) put(up[i], 0.0f);
    }
}

} // namespace

#define BOTH(name, T)                                                                                                  \
    extern "C" void norm_forward_##name(const float *x, const float *w, T *out, float *scales, int64_t rows,           \
                                        int64_t width, float eps) {                                                    \
        norm_forward(x, w, out, scales, rows, width, eps);                                                             \
    }                                                                                                                  \
    extern "C" void norm_backward_##name(const T *g, const float *x, const float *w, const float *scales, float *dx,   \
                                         float *dw, int64_t rows, int64_t width) {                                     \
        norm_backward(g, x, w, scales, dx, dw, rows, width);                                                           \
    }                                                                                                                  \
    extern "C" void frozen_norm_forward_##name(const T *x, const float *w, T *out, float *scales, int64_t rows,         \
                                               int64_t width, float eps) {                                             \
        frozen_norm_forward(x, w, out, scales, rows, width, eps);                                                      \
    }                                                                                                                  \
    extern "C" void frozen_norm_backward_##name(const T *g, const T *x, const float *w, const float *scales, T *dx,     \
                                                int64_t rows, int64_t width) {                                         \
        frozen_norm_backward(g, x, w, scales, dx, rows, width);                                                        \
    }                                                                                                                  \
    extern "C" void rope_forward_##name(const T *x, const float *w, const float *c, const float *s, T *out,            \
                                        float *scales, int64_t batch, int64_t time, int64_t heads, int64_t width,      \
                                        float eps) {                                                                   \
        rope_forward(x, w, c, s, out, scales, batch, time, heads, width, eps);                                         \
    }                                                                                                                  \
    extern "C" void rope_backward_##name(const T *g, const T *x, const float *w, const float *c, const float *s,       \
                                         const float *scales, T *dx, float *dw, int64_t batch, int64_t time,           \
                                         int64_t heads, int64_t width) {                                               \
        rope_backward(g, x, w, c, s, scales, dx, dw, batch, time, heads, width);                                       \
    }                                                                                                                  \
    extern "C" void swiglu_forward_##name(const T *gate, const T *up, T *out, int64_t count) {                         \
        swiglu_forward(gate, up, out, count);                                                                          \
    }                                                                                                                  \
    extern "C" void swiglu_backward_##name(const T *g, const T *gate, const T *up, T *dgate, T *dup, int64_t count) {  \
        swiglu_backward(g, gate, up, dgate, dup, count);                                                               \
    }                                                                                                                  \
    extern "C" void drop_##name(const T *x, T *out, int64_t count, int64_t seed, int64_t level) {                      \
        drop(x, out, count, seed, level);                                                                              \
    }                                                                                                                  \
    extern "C" void drop_add_##name(const T *change, T *out, int64_t count, int64_t seed, int64_t level) {             \
        drop_add(change, out, count, seed, level);                                                                     \
    }                                                                                                                  \
    extern "C" void softmax_forward_##name(T *scores, int64_t heads, int64_t rows, int64_t seen, int64_t first,        \
                                           float scale) {                                                              \
        softmax_forward(scores, heads, rows, seen, first, scale);                                                      \
    }                                                                                                                  \
    extern "C" void softmax_backward_##name(T *g, const T *p, int64_t heads, int64_t rows, int64_t seen,               \
                                            int64_t first, float scale) {                                              \
        softmax_backward(g, p, heads, rows, seen, first, scale);                                                       \
    }

BOTH(float32, float)
BOTH(bfloat16, bf16)
