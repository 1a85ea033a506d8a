// Losses of fully connected nets, gradients, steps of descent and products with Hessians: what workers/dense_native.py
// calls.
//
// Of each net a_m = W_m x_{m-1} + b_m, x_m = phi(a_m) and delta_m = dl/da_m, as in workers/dense_gradient.py; R is the
// derivative along a vector, as in workers/dense_products.py. A sample is a row, its units are contiguous and padded to whole vectors. Samples are taken in chunks whose rows a cache holds, and
// tiles of a product stay in registers while one index is summed over in order: a net's numbers depend on nothing but
// itself and its samples. No operation is reordered by the compiler (no -ffast-math): NaN and infinity spread as usual.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <tuple>
#include <utility>
#include <vector>

namespace {

#if defined(__AVX512F__)
constexpr int64_t BYTES = 64;
#else
constexpr int64_t BYTES = 32;
#endif
constexpr int64_t CHUNK_BYTES = 128 << 10;  // of a chunk's rows
constexpr int64_t LEAST_SAMPLES = 32, MOST_SAMPLES = 256, LEAST_OF_PRODUCTS = 64;  // whose sums are many
constexpr int64_t VECTORS_BYTES = 64 << 20;  // of the sums of vectors that share a pass over the samples
constexpr int64_t DEPTH_BYTES = 32 << 10;  // of a panel that a product passes over: the nearest cache holds most of it
constexpr int MOST_ROWS = BYTES == 64 ? 12 : 6;  // of a tile: with two vectors a row, its sums fill most registers

enum Activation { LINEAR, TANH, RELU, SIGMOID, SILU };
enum Loss { CROSS_ENTROPY, MSE };

// vectors -------------------------------------------------------------------------------------------------------------

template <class T> struct Real;

template <> struct Real<float> {
    typedef float Vector __attribute__((vector_size(BYTES)));
    typedef int32_t Bits __attribute__((vector_size(BYTES)));
    static constexpr int64_t width = BYTES / sizeof(float);
    static constexpr float magic = 12582912.0f;  // 1.5·2^23: what is added to it is rounded to a whole number
    static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    static constexpr float lowest = -87.3f, highest = 88.3f;  // of exp
    static constexpr int32_t bias = 127, mantissa = 23, sign = INT32_MIN;
    static constexpr int degree = 8;
};

template <> struct Real<double> {
    typedef double Vector __attribute__((vector_size(BYTES)));
    typedef int64_t Bits __attribute__((vector_size(BYTES)));
    static constexpr int64_t width = BYTES / sizeof(double);
    static constexpr double magic = 6755399441055744.0;  // 1.5·2^52
    static constexpr double ln2_high = 6.93145751953125e-1, ln2_low = 1.42860682030941723212e-6;
    static constexpr double lowest = -708.0, highest = 709.0;
    static constexpr int64_t bias = 1023, mantissa = 52, sign = INT64_MIN;
    static constexpr int degree = 14;
};

template <class T> using Vector = typename Real<T>::Vector;
template <class T> using Bits = typename Real<T>::Bits;

template <class T> inline Vector<T> load(const T* from) {
    Vector<T> found;
    std::memcpy(&found, from, BYTES);
    return found;
}

template <class T> inline void store(T* to, Vector<T> values) { std::memcpy(to, &values, BYTES); }

template <class T> inline Vector<T> all(T value) { return value - Vector<T>{}; }

template <class T> struct Power {
    Vector<T> scale, rest;  // e^x = scale·(1 + rest)
};

// x = n·ln 2 + r with |r| <= ln 2 / 2, scale = 2^n, rest = e^r - 1 by Taylor's series.
template <class T> inline Power<T> powered(Vector<T> x) {
    using R = Real<T>;
    const Vector<T> shifted = x * T(1.44269504088896340736) + R::magic, n = shifted - R::magic;
    const Vector<T> r = (x - n * R::ln2_high) - n * R::ln2_low;
    double factorial = 1;
    T inverse[R::degree + 1];
    for (int k = 1; k <= R::degree; ++k) inverse[k] = T(1 / (factorial *= k));
    Vector<T> series = all<T>(inverse[R::degree]);
    for (int k = R::degree - 1; k >= 2; --k) series = series * r + inverse[k];
    return {(Vector<T>)(((Bits<T>)shifted + R::bias) << R::mantissa), series * r * r + r};
}

template <class T> inline Vector<T> exponential(Vector<T> x) {
    x = x < Real<T>::lowest ? all<T>(Real<T>::lowest) : x;
    x = x > Real<T>::highest ? all<T>(Real<T>::highest) : x;
    const Power<T> p = powered<T>(x);
    return p.scale + p.scale * p.rest;
}

// q/(q + 2) with q = e^{2|x|} - 1, which is accurate near 0 too.
template <class T> inline Vector<T> hyperbolic_tangent(Vector<T> x) {
    const Bits<T> sign = (Bits<T>)x & Real<T>::sign;
    Vector<T> size = (Vector<T>)((Bits<T>)x & ~Real<T>::sign);
    size = size > T(20) ? all<T>(20) : size;
    const Power<T> p = powered<T>(size + size);
    const Vector<T> q = p.scale * p.rest + (p.scale - T(1));
    return (Vector<T>)((Bits<T>)(q / (q + T(2))) | sign);
}

template <class T> inline Vector<T> sigmoid(Vector<T> x) { return T(1) / (T(1) + exponential<T>(-x)); }

// The transpose of as many rows and columns as a vector has elements: some rows are read, the others 0, and some columns
// written. Blocks off the diagonal change places, halves first.
template <class T>
inline void turned(const T* from, int64_t from_length, int64_t some_rows, T* to, int64_t to_length, int64_t some_columns) {
    constexpr int64_t width = Real<T>::width;
    Vector<T> rows[width];
#pragma GCC unroll 16
    for (int64_t i = 0; i < width; ++i) rows[i] = i < some_rows ? load(from + i * from_length) : Vector<T>{};
#pragma GCC unroll 8
    for (int64_t half = width / 2; half; half /= 2) {
        Bits<T> low, high;
        for (int64_t i = 0; i < width; ++i) {
            low[i] = i & half ? i - half + width : i;
            high[i] = i & half ? i + width : i + half;
        }
#pragma GCC unroll 16
        for (int64_t i = 0; i < width; ++i) {
            if (i & half) continue;
            const Vector<T> a = rows[i], b = rows[i + half];
            rows[i] = __builtin_shuffle(a, b, low);
            rows[i + half] = __builtin_shuffle(a, b, high);
        }
    }
#pragma GCC unroll 16
    for (int64_t i = 0; i < width; ++i)
        if (i < some_columns) store<T>(to + i * to_length, rows[i]);
}

// phi(a) in place of a, phi'(a), and where there is a place for it phi''(a).
template <class T, int ACTIVATION> inline void activated(T* values, T* slopes, T* bends, int64_t count) {
    for (int64_t i = 0; i < count; i += Real<T>::width) {
        const Vector<T> a = load(values + i);
        Vector<T> value = a, slope = all<T>(1), bend = {};
        if constexpr (ACTIVATION == TANH) {
            value = hyperbolic_tangent<T>(a);
            slope = T(1) - value * value;
            bend = T(-2) * value * slope;
        } else if constexpr (ACTIVATION == RELU) {
            value = a < T(0) ? all<T>(0) : a;
            slope = a > T(0) ? all<T>(1) : all<T>(0);
        } else if constexpr (ACTIVATION == SIGMOID || ACTIVATION == SILU) {
            const Vector<T> s = sigmoid<T>(a), t = sigmoid<T>(-a);  // not 1 - s, which cancels
            value = ACTIVATION == SILU ? a * s : s;
            slope = ACTIVATION == SILU ? s * (T(1) + a * t) : s * t;
            bend = ACTIVATION == SILU ? s * t * (T(2) + a * (t - s)) : s * t * (t - s);
        }
        store(values + i, value);
        store(slopes + i, slope);
        if (bends) store(bends + i, bend);
    }
}

template <class T> void activated(int activation, T* values, T* slopes, T* bends, int64_t count) {
    switch (activation) {
        case TANH: return activated<T, TANH>(values, slopes, bends, count);
        case RELU: return activated<T, RELU>(values, slopes, bends, count);
        case SIGMOID: return activated<T, SIGMOID>(values, slopes, bends, count);
        case SILU: return activated<T, SILU>(values, slopes, bends, count);
        default: return activated<T, LINEAR>(values, slopes, bends, count);
    }
}

// products ------------------------------------------------------------------------------------------------------------

// out[i][j] = start[i·step + j] + sum_k rows[i][from + k]·panel[k][j], of M rows and N vectors of columns.
template <class T, int M, int N>
inline void product_tile(const T* const* given, int64_t from, int64_t depth, const T* panel, const T* start,
                         int64_t step, T* out, int64_t stride) {
    constexpr int64_t width = Real<T>::width;
    Vector<T> sum[M][N];
    const T* rows[M];
    for (int i = 0; i < M; ++i) {
        rows[i] = given[i] + from;
        for (int j = 0; j < N; ++j) sum[i][j] = load(start + i * step + j * width);
    }
    for (int64_t k = 0; k < depth; ++k) {
        Vector<T> column[N];
        for (int j = 0; j < N; ++j) column[j] = load(panel + (k * N + j) * width);
        for (int i = 0; i < M; ++i)
            for (int j = 0; j < N; ++j) sum[i][j] += rows[i][k] * column[j];
    }
    for (int i = 0; i < M; ++i)
        for (int j = 0; j < N; ++j) store(out + i * stride + j * width, sum[i][j]);
}

// sums[i][j] += sum_s factors[s][i]·rows[s][j], of M rows and N vectors of columns.
template <class T, int M, int N>
inline void outer_tile(const T* factors, int64_t stride, const T* const* rows, int64_t column, int64_t samples, T* sums,
                       int64_t length) {
    constexpr int64_t width = Real<T>::width;
    Vector<T> sum[M][N] = {};
    for (int64_t s = 0; s < samples; ++s) {
        Vector<T> row[N];
        for (int j = 0; j < N; ++j) row[j] = load(rows[s] + column + j * width);
        for (int i = 0; i < M; ++i)
            for (int j = 0; j < N; ++j) sum[i][j] += factors[s * stride + i] * row[j];
    }
    for (int i = 0; i < M; ++i)
        for (int j = 0; j < N; ++j) {
            T* place = sums + i * length + j * width;
            store<T>(place, load(place) + sum[i][j]);
        }
}

template <int M = MOST_ROWS, class Tile> inline void in_tile(int64_t height, int64_t first, const Tile& tile) {
    if (height == M) return tile.template operator()<M>(first);
    if constexpr (M > 1) in_tile<M - 1>(height, first, tile);
}

// Rows in tiles of nearly one height: calls tile.template operator()<M>(first row).
template <class Tile> inline void in_tiles(int64_t rows, const Tile& tile) {
    const int64_t tiles = (rows + MOST_ROWS - 1) / MOST_ROWS;
    for (int64_t t = 0, first = 0; t < tiles; ++t) {
        const int64_t height = (rows - first + tiles - t - 1) / (tiles - t);
        in_tile(height, first, tile);
        first += height;
    }
}

template <class T> int64_t padded(int64_t count) {
    return (count + Real<T>::width - 1) / Real<T>::width * Real<T>::width;
}

// Columns in panels of two vectors, the last perhaps of one: calls panel(first column, vectors).
template <class T, class Panel> inline void in_panels(int64_t columns, const Panel& panel) {
    constexpr int64_t width = Real<T>::width;
    for (int64_t first = 0; first < columns; first += 2 * width) panel(first, columns - first > width ? 2 : 1);
}

// out (samples, columns) = start + rows·matrix, the matrix in panels, start one row or, where it is out, all of them.
// columns is padded.
template <class T>
void product(const T* const* rows, int64_t samples, int64_t depth, const T* matrix, const T* start, T* out,
             int64_t columns) {
    constexpr int64_t most = DEPTH_BYTES / (2 * BYTES);
    for (int64_t from = 0; from < depth; from += most, start = out) {
        const int64_t step = start == out ? columns : 0, some = std::min(most, depth - from);
        in_panels<T>(columns, [&](int64_t column, int vectors) {
            const T* panel = matrix + column * depth + from * vectors * Real<T>::width;
            in_tiles(samples, [&]<int M>(int64_t first) {
                const T* begin = start + first * step + column;
                T* place = out + first * columns + column;
                if (vectors == 2)
                    product_tile<T, M, 2>(rows + first, from, some, panel, begin, step, place, columns);
                else
                    product_tile<T, M, 1>(rows + first, from, some, panel, begin, step, place, columns);
            });
        });
    }
}

// sums (units, length) += factors^T·rows. length is padded.
template <class T>
void outer(const T* factors, int64_t stride, int64_t units, const T* const* rows, int64_t samples, T* sums,
           int64_t length) {
    in_panels<T>(length, [&](int64_t column, int vectors) {
        in_tiles(units, [&]<int M>(int64_t first) {
            T* place = sums + first * length + column;
            if (vectors == 2)
                outer_tile<T, M, 2>(factors + first, stride, rows, column, samples, place, length);
            else
                outer_tile<T, M, 1>(factors + first, stride, rows, column, samples, place, length);
        });
    });
}

// A matrix (rows, columns) in panels of padded columns.
template <class T> void packed(const T* from, int64_t rows, int64_t columns, T* to) {
    in_panels<T>(padded<T>(columns), [&](int64_t first, int vectors) {
        const int64_t length = vectors * Real<T>::width, there = std::min(length, columns - first);
        for (int64_t k = 0; k < rows; ++k, to += length) std::memcpy(to, from + k * columns + first, there * sizeof(T));
    });
}

// Likewise the transpose of a matrix (columns, rows).
template <class T> void packed_transpose(const T* from, int64_t rows, int64_t columns, T* to) {
    constexpr int64_t width = Real<T>::width;
    in_panels<T>(padded<T>(columns), [&](int64_t first, int vectors) {
        const int64_t length = vectors * width;
        for (int64_t column = first; column < std::min(columns, first + length); column += width) {
            const int64_t there = std::min(width, columns - column);
            T* place = to + (column - first);
            int64_t k = 0;
            for (; k + width <= rows; k += width)
                turned<T>(from + column * rows + k, rows, there, place + k * length, length, width);
            for (; k < rows; ++k)
                for (int64_t j = 0; j < there; ++j) place[k * length + j] = from[(column + j) * rows + k];
        }
        to += rows * length;
    });
}

// a net ---------------------------------------------------------------------------------------------------------------

struct Freed {
    void operator()(void* memory) const { std::free(memory); }
};

template <class T> struct Buffer {
    std::unique_ptr<T, Freed> memory;
    T* get(int64_t count) {  // zeros
        const size_t bytes = (count * sizeof(T) + 127) / 64 * 64;
        memory.reset(static_cast<T*>(std::aligned_alloc(64, bytes)));
        if (!memory) throw std::bad_alloc();
        std::memset(memory.get(), 0, bytes);
        return memory.get();
    }
};

struct Shape {
    int64_t depth;
    const int64_t* widths;  // inputs, hidden …, outputs
    int bias, activation, loss;
};

template <class T> struct Data {
    const T* inputs;         // (N, d)
    const int64_t* labels;   // (N,), or null
    const T* targets;        // (N, c), or null
    const int64_t* index;    // of a net's samples, or null: the first ones
    int64_t count;           // of a net's samples
};

// v <- momentum·v + g + decay·theta; theta <- theta - rate·v, or - rate·(g + decay·theta + momentum·v) with Nesterov's.
template <class T> struct Descent {
    T momentum, decay;
    bool nesterov;
    const T* rates;  // of the steps, one every so many
    int64_t stride;
    int64_t size, indices;  // of a minibatch, and how many there are in all: the last may be ragged
};

enum Work { LOSSES, GRADIENTS, PRODUCTS };

// What a net is evaluated with; memory is taken once for all nets of a call.
template <class T> class Net {
  public:
    // What a pass leaves of each of ``held`` samples is kept, where there are any, for products with one vector after
    // another.
    Net(const Shape& shape, Work work, int64_t vectors, int64_t held = 0)
        : shape_(shape), work_(work), held_(held > 0), layers_(shape.depth + 1) {
        const int64_t depth = shape.depth, arrays = work == LOSSES ? 2 : work == GRADIENTS ? 3 : 7;
        int64_t row = copied() ? padded<T>(shape.widths[0]) : 0, widest = padded<T>(shape.widths[0]);
        for (int64_t m = 1; m <= depth; ++m) {
            row += arrays * padded<T>(shape.widths[m]);
            widest = std::max(widest, padded<T>(shape.widths[m]));
        }
        const int64_t least = work == PRODUCTS ? LEAST_OF_PRODUCTS : LEAST_SAMPLES;
        samples_ = std::min(MOST_SAMPLES, std::max(least, CHUNK_BYTES / int64_t(row * sizeof(T))));
        const int64_t left = held_ ? (held + samples_ - 1) / samples_ * samples_ : samples_;
        if (copied()) layers_[0].values = taken(left * padded<T>(shape.widths[0]));
        for (int64_t m = 1; m <= depth; ++m) {
            const int64_t in = shape.widths[m - 1], out = shape.widths[m], units = padded<T>(out);
            Layer& layer = layers_[m];
            layer.net.take(*this, in, out, m > 1 && work != LOSSES);
            layer.values = taken(left * units);
            layer.slopes = taken(left * units);
            if (work == LOSSES) continue;
            layer.delta = taken(left * units);
            if (work == GRADIENTS) continue;
            layer.along.take(*this, in, out, m > 1);
            layer.bends = taken(left * units);
            for (T** place : {&layer.before, &layer.moved, &layer.moved_delta}) *place = taken(samples_ * units);
        }
        if (work != LOSSES) make_room(vectors);
        zeros_ = taken(widest);
        columns_ = taken(Real<T>::width * padded<T>(shape.widths[depth]));
        if (work == PRODUCTS) shares_ = taken(left * padded<T>(shape.widths[depth]));
        rows_.resize(samples_);
        places_.resize(samples_);
    }

    // Mean loss and share of wrong labels of one net; its gradient (n,), unless the net was made without.
    void evaluate(const T* theta, const Data<T>& data, T* gradient, double* loss, double* wrong) {
        begin(theta, 1);
        double total = 0, errors = 0;
        in_chunks(data, [&](int64_t samples) {
            forward(data, samples);
            judge(data, samples, loss ? &total : nullptr, wrong ? &errors : nullptr);
            if (work_ == GRADIENTS) pull_back(data, samples);
        });
        const int64_t outputs = shape_.widths[shape_.depth];
        if (loss) *loss = total / double(data.count * (shape_.loss == MSE ? outputs : 1));
        if (wrong) *wrong = errors / double(data.count);
        if (work_ == GRADIENTS) give(0, gradient);
    }

    // Steps of momentum SGD, each on the minibatch that follows in data.index.
    void descend(T* theta, T* velocity, Data<T> data, const Descent<T>& rule, int64_t steps) {
        const int64_t* index = data.index;
        for (int64_t step = 0; step < steps; ++step) {
            data.index = index + step * rule.size;
            data.count = std::min(rule.size, rule.indices - step * rule.size);
            begin(theta, 1);
            in_chunks(data, [&](int64_t samples) {
                forward(data, samples);
                judge(data, samples, nullptr, nullptr);
                pull_back(data, samples);
            });
            move_down(theta, velocity, rule, rule.rates[step * rule.stride]);
        }
    }

    // The Hessian of the mean loss times each of the vectors (count, n).
    void products(const T* theta, const Data<T>& data, const T* vectors, int64_t count, int64_t dim, T* found) {
        begin(theta, count);
        in_chunks(data, [&](int64_t samples) {
            pass(data, samples);
            along(data, samples, vectors, count, dim);
        });
        for (int64_t v = 0; v < count; ++v) give(v, found + v * dim);
    }

    // Keep what a pass leaves.
    void hold(const T* theta, const Data<T>& data) {
        begin(theta, 0);
        in_chunks(data, [&](int64_t samples) { pass(data, samples); });
    }

    // As above, to the bit, of the net that is held.
    void products(const Data<T>& data, const T* vectors, int64_t count, int64_t dim, T* found) {
        make_room(count);
        clear(count);
        in_chunks(data, [&](int64_t samples) { along(data, samples, vectors, count, dim); });
        for (int64_t v = 0; v < count; ++v) give(v, found + v * dim);
    }

  private:
    // Weights of a layer as products take them, and a bias.
    struct Weights {
        T *forward = nullptr, *backward = nullptr, *bias = nullptr;

        void take(Net& net, int64_t in, int64_t out, bool both) {
            forward = net.taken(in * padded<T>(out));
            bias = net.taken(padded<T>(out));
            if (both) backward = net.taken(out * padded<T>(in));
        }
    };

    struct Layer {
        Weights net, along;                     // of the net; of the vector that it moves along
        T *values = nullptr, *slopes = nullptr;  // x_m and phi'(a_m); of the last layer a_m
        T *delta = nullptr, *bends = nullptr;    // delta_m; phi''(a_m), then times W^T delta
        T *before = nullptr, *moved = nullptr, *moved_delta = nullptr;  // R a_m, R x_m, R delta_m
        std::vector<T*> sums, bias_sums;         // of each vector
    };

    bool copied() const { return shape_.widths[0] % Real<T>::width != 0; }  // else a sample's own row is as good

    T* taken(int64_t count) {
        memory_.emplace_back();
        return memory_.back().get(count);
    }

    template <class Chunk> void in_chunks(const Data<T>& data, const Chunk& chunk) {
        for (int64_t first = 0; first < data.count; first += samples_) {
            const int64_t samples = std::min(samples_, data.count - first);
            for (int64_t s = 0; s < samples; ++s) places_[s] = data.index ? data.index[first + s] : first + s;
            chunk(samples);
            if (held_) shift(samples_);
        }
        if (held_) shift(-(data.count + samples_ - 1) / samples_ * samples_);
    }

    // To what a pass left of other samples.
    void shift(int64_t samples) {
        for (int64_t m = 0; m <= shape_.depth; ++m)
            for (T** place : {&layers_[m].values, &layers_[m].slopes, &layers_[m].delta, &layers_[m].bends})
                if (*place) *place += samples * padded<T>(shape_.widths[m]);
        shares_ += samples * padded<T>(shape_.widths[shape_.depth]);
    }

    void make_room(int64_t vectors) {
        for (int64_t m = 1; m <= shape_.depth; ++m)
            while (int64_t(layers_[m].sums.size()) < vectors) {
                layers_[m].sums.push_back(taken(shape_.widths[m] * padded<T>(shape_.widths[m - 1])));
                layers_[m].bias_sums.push_back(taken(padded<T>(shape_.widths[m])));
            }
    }

    void clear(int64_t vectors) {
        for (int64_t m = 1; m <= shape_.depth; ++m)
            for (int64_t v = 0; v < vectors; ++v) {
                const int64_t out = shape_.widths[m];
                std::memset(layers_[m].sums[v], 0, out * padded<T>(shape_.widths[m - 1]) * sizeof(T));
                std::memset(layers_[m].bias_sums[v], 0, padded<T>(out) * sizeof(T));
            }
    }

    void pass(const Data<T>& data, int64_t samples) {
        forward(data, samples);
        judge(data, samples, nullptr, nullptr);
        pull_back(data, samples);
    }

    void along(const Data<T>& data, int64_t samples, const T* vectors, int64_t count, int64_t dim) {
        for (int64_t v = 0; v < count; ++v) {
            place(vectors + v * dim, &Layer::along);
            move(data, samples);
            pull_back_moved(data, samples, v);
        }
    }

    void begin(const T* theta, int64_t vectors) {
        place(theta, &Layer::net);
        if (work_ != LOSSES) clear(vectors);
    }

    void place(const T* theta, Weights Layer::*which) {
        for (int64_t m = 1; m <= shape_.depth; ++m) {
            const int64_t in = shape_.widths[m - 1], out = shape_.widths[m];
            Weights& weights = layers_[m].*which;
            packed_transpose(theta, in, out, weights.forward);
            if (weights.backward) packed(theta, out, in, weights.backward);
            theta += in * out;
            if (shape_.bias) {
                std::memcpy(weights.bias, theta, out * sizeof(T));
                theta += out;
            }
        }
    }

    const T* const* rows(const T* values, int64_t samples, int64_t length) {
        for (int64_t s = 0; s < samples; ++s) rows_[s] = values + s * length;
        return rows_.data();
    }

    // x_{m-1} of each sample.
    const T* const* below(int64_t m, const Data<T>& data, int64_t samples) {
        const int64_t width = shape_.widths[m - 1];
        if (m > 1 || copied()) return rows(layers_[m - 1].values, samples, padded<T>(width));
        for (int64_t s = 0; s < samples; ++s) rows_[s] = data.inputs + places_[s] * width;
        return rows_.data();
    }

    void forward(const Data<T>& data, int64_t samples) {
        if (copied()) {
            const int64_t width = shape_.widths[0];
            for (int64_t s = 0; s < samples; ++s)
                std::memcpy(layers_[0].values + s * padded<T>(width), data.inputs + places_[s] * width, width * sizeof(T));
        }
        for (int64_t m = 1; m <= shape_.depth; ++m) {
            const int64_t length = padded<T>(shape_.widths[m]);
            Layer& layer = layers_[m];
            product<T>(below(m, data, samples), samples, shape_.widths[m - 1], layer.net.forward, layer.net.bias,
                       layer.values, length);
            if (m < shape_.depth)
                activated<T>(shape_.activation, layer.values, layer.slopes, layer.bends, samples * length);
        }
    }

    // delta of the last layer from its outputs.
    void judge(const Data<T>& data, int64_t samples, double* total, double* errors) {
        const int64_t classes = shape_.widths[shape_.depth], length = padded<T>(classes);
        const T *outputs = layers_[shape_.depth].values, twice = T(2.0 / double(data.count * classes));
        T* delta = layers_[shape_.depth].delta;
        if (errors)
            for (int64_t s = 0; s < samples; ++s)
                *errors += largest(outputs + s * length, classes) != data.labels[places_[s]];
        if (shape_.loss == CROSS_ENTROPY) return softmax(data, outputs, samples, delta, total);
        for (int64_t s = 0; s < samples; ++s) {
            const T* wanted = data.targets + places_[s] * classes;
            for (int64_t j = 0; j < classes; ++j) {
                const T missed = outputs[s * length + j] - wanted[j];
                if (total) *total += double(missed) * double(missed);
                if (delta) delta[s * length + j] = missed * twice;
            }
        }
    }

    // The first of the largest; NaN is the largest, as in torch's argmax.
    static int64_t largest(const T* outputs, int64_t classes) {
        int64_t best = 0;
        for (int64_t j = 1; j < classes && outputs[best] == outputs[best]; ++j)
            if (!(outputs[j] <= outputs[best])) best = j;
        return best;
    }

    // As many samples as a vector has elements at a time: columns_[j] holds class j of each.
    void softmax(const Data<T>& data, const T* outputs, int64_t samples, T* delta, double* total) {
        constexpr int64_t width = Real<T>::width;
        const int64_t classes = shape_.widths[shape_.depth], length = padded<T>(classes);
        const T share = T(1.0 / double(data.count));
        T* columns = columns_;
        for (int64_t first = 0; first < samples; first += width) {
            const int64_t some = std::min(width, samples - first);
            const auto back = [&](T* to) {  // the columns into the rows of these samples
                for (int64_t j = 0; j < length; j += width)
                    turned<T>(columns + j * width, width, width, to + first * length + j, length, some);
            };
            for (int64_t j = 0; j < length; j += width)
                turned<T>(outputs + first * length + j, length, some, columns + j * width, width, width);
            Vector<T> most = load(columns), sum = {};
            for (int64_t j = 1; j < classes; ++j) {
                const Vector<T> column = load(columns + j * width);
                most = column > most ? column : most;
            }
            for (int64_t j = 0; j < classes; ++j) {
                const Vector<T> part = exponential<T>(load(columns + j * width) - most);  // NaN where an output is
                sum += part;
                store(columns + j * width, part);
            }
            const Vector<T> factor = T(1) / sum;
            for (int64_t j = 0; j < classes; ++j) store<T>(columns + j * width, load(columns + j * width) * factor);
            if (shares_) back(shares_);
            if (delta) {
                for (int64_t j = 0; j < classes; ++j) store<T>(columns + j * width, load(columns + j * width) * share);
                back(delta);
            }
            for (int64_t s = 0; s < some; ++s) {
                const int64_t chosen = (first + s) * length + data.labels[places_[first + s]];
                if (delta) delta[chosen] -= share;
                if (total) *total += std::log(double(sum[s])) + (double(most[s]) - double(outputs[chosen]));
            }
        }
    }

    // delta_m of each layer; of gradients the sums, of products the bends.
    void pull_back(const Data<T>& data, int64_t samples) {
        for (int64_t m = shape_.depth; m >= 1; --m) {
            const int64_t units = shape_.widths[m], stride = padded<T>(units), length = padded<T>(shape_.widths[m - 1]);
            Layer &layer = layers_[m], &lower = layers_[m - 1];
            if (work_ == GRADIENTS) {
                outer<T>(layer.delta, stride, units, below(m, data, samples), samples, layer.sums[0], length);
                if (shape_.bias) added(layer.delta, samples, stride, layer.bias_sums[0]);
            }
            if (m == 1) return;
            const T* const* above = rows(layer.delta, samples, stride);
            product<T>(above, samples, units, layer.net.backward, zeros_, lower.delta, length);
            for (int64_t i = 0; i < samples * length; i += Real<T>::width) {
                const Vector<T> pulled = load(lower.delta + i);
                if (lower.bends) store<T>(lower.bends + i, load(lower.bends + i) * pulled);
                store<T>(lower.delta + i, pulled * load(lower.slopes + i));
            }
        }
    }

    // R a_m = W_m R x_{m-1} + V_m x_{m-1} + v_m, R x_m = phi' R a_m, and R delta of the last layer.
    void move(const Data<T>& data, int64_t samples) {
        const int64_t depth = shape_.depth;
        for (int64_t m = 1; m <= depth; ++m) {
            const int64_t in = shape_.widths[m - 1], length = padded<T>(shape_.widths[m]);
            Layer& layer = layers_[m];
            product<T>(below(m, data, samples), samples, in, layer.along.forward, layer.along.bias, layer.before, length);
            if (m > 1) {
                const T* const* moved = rows(layers_[m - 1].moved, samples, padded<T>(in));
                product<T>(moved, samples, in, layer.net.forward, layer.before, layer.before, length);
            }
            if (m < depth)
                for (int64_t i = 0; i < samples * length; i += Real<T>::width)
                    store<T>(layer.moved + i, load(layer.before + i) * load(layer.slopes + i));
        }
        const int64_t classes = shape_.widths[depth], length = padded<T>(classes);
        const T share = T(1.0 / double(data.count)), twice = T(2.0 / double(data.count * classes));
        for (int64_t s = 0; s < samples; ++s) {
            const T *before = layers_[depth].before + s * length, *p = shares_ + s * length;
            T *found = layers_[depth].moved_delta + s * length, mean = 0;
            if (shape_.loss == MSE) {
                for (int64_t j = 0; j < classes; ++j) found[j] = before[j] * twice;
                continue;
            }
            for (int64_t j = 0; j < classes; ++j) mean += p[j] * before[j];
            for (int64_t j = 0; j < classes; ++j) found[j] = p[j] * (before[j] - mean) * share;
        }
    }

    // R delta_{m-1} = phi' (W_m^T R delta_m + V_m^T delta_m) + phi'' W_m^T delta_m R a_{m-1}; the sums have
    // R delta_m x_{m-1}^T + delta_m R x_{m-1}^T.
    void pull_back_moved(const Data<T>& data, int64_t samples, int64_t vector) {
        for (int64_t m = shape_.depth; m >= 1; --m) {
            const int64_t units = shape_.widths[m], stride = padded<T>(units), length = padded<T>(shape_.widths[m - 1]);
            Layer &layer = layers_[m], &lower = layers_[m - 1];
            outer<T>(layer.moved_delta, stride, units, below(m, data, samples), samples, layer.sums[vector], length);
            if (shape_.bias) added(layer.moved_delta, samples, stride, layer.bias_sums[vector]);
            if (m == 1) return;
            outer<T>(layer.delta, stride, units, rows(lower.moved, samples, length), samples, layer.sums[vector], length);
            T* next = lower.moved_delta;
            product<T>(rows(layer.moved_delta, samples, stride), samples, units, layer.net.backward, zeros_, next, length);
            product<T>(rows(layer.delta, samples, stride), samples, units, layer.along.backward, next, next, length);
            for (int64_t i = 0; i < samples * length; i += Real<T>::width)
                store<T>(next + i, load(next + i) * load(lower.slopes + i) + load(lower.bends + i) * load(lower.before + i));
        }
    }

    static void added(const T* delta, int64_t samples, int64_t length, T* sums) {
        for (int64_t j = 0; j < length; j += Real<T>::width) {
            Vector<T> sum = load(sums + j);
            for (int64_t s = 0; s < samples; ++s) sum += load(delta + s * length + j);
            store<T>(sums + j, sum);
        }
    }

    // The sums of a vector as theta is laid out: calls piece(place in theta, sums, how many).
    template <class Piece> void in_pieces(int64_t vector, const Piece& piece) const {
        int64_t place = 0;
        for (int64_t m = 1; m <= shape_.depth; ++m) {
            const int64_t in = shape_.widths[m - 1], out = shape_.widths[m], length = padded<T>(in);
            for (int64_t unit = 0; unit < out; ++unit, place += in)
                piece(place, layers_[m].sums[vector] + unit * length, in);
            if (shape_.bias) {
                piece(place, layers_[m].bias_sums[vector], out);
                place += out;
            }
        }
    }

    void give(int64_t vector, T* found) const {
        in_pieces(vector, [&](int64_t place, const T* sums, int64_t count) {
            std::memcpy(found + place, sums, count * sizeof(T));
        });
    }

    void move_down(T* theta, T* velocity, const Descent<T>& rule, T rate) const {
        const auto move = [&](auto at, auto speed, auto slope) {
            slope += rule.decay * at;
            speed = rule.momentum * speed + slope;
            return std::pair(at - rate * (rule.nesterov ? slope + rule.momentum * speed : speed), speed);
        };
        in_pieces(0, [&](int64_t place, const T* sums, int64_t count) {
            T *at = theta + place, *speed = velocity + place;
            int64_t i = 0;
            for (; i + Real<T>::width <= count; i += Real<T>::width) {
                const auto [moved, faster] = move(load(at + i), load(speed + i), load(sums + i));
                store<T>(at + i, moved);
                store<T>(speed + i, faster);
            }
            for (; i < count; ++i) std::tie(at[i], speed[i]) = move(at[i], speed[i], sums[i]);
        });
    }

    const Shape shape_;
    const Work work_;
    const bool held_;
    int64_t samples_;  // of a chunk
    std::vector<Layer> layers_;
    std::vector<Buffer<T>> memory_;
    T *zeros_, *columns_, *shares_ = nullptr;
    std::vector<const T*> rows_;
    std::vector<int64_t> places_;
};

template <class Action> int guarded(const Action& action) noexcept {
    try {
        action();
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

template <class T>
void evaluated(int64_t nets, const T* thetas, int64_t dim, const Shape& shape, Data<T> data, int64_t index_stride,
               T* gradients, double* losses, double* wrong) {
    Net<T> net(shape, gradients ? GRADIENTS : LOSSES, 1);
    const int64_t* index = data.index;
    for (int64_t i = 0; i < nets; ++i) {
        data.index = index ? index + i * index_stride : nullptr;
        net.evaluate(thetas + i * dim, data, gradients ? gradients + i * dim : nullptr, losses ? losses + i : nullptr,
                     wrong ? wrong + i : nullptr);
    }
}

template <class T>
void descended(int64_t nets, T* thetas, int64_t dim, const Shape& shape, Data<T> data, int64_t index_stride,
               T* velocities, const T* momenta, const T* decays, Descent<T> rule, int64_t steps) {
    Net<T> net(shape, GRADIENTS, 1);
    const int64_t* index = data.index;
    for (int64_t i = 0; i < nets; ++i, ++rule.rates) {
        data.index = index + i * index_stride;
        rule.momentum = momenta[i], rule.decay = decays[i];
        net.descend(thetas + i * dim, velocities + i * dim, data, rule, steps);
    }
}

// Nets with their samples, held for products with one vector after another.
template <class T> struct Held {
    std::vector<int64_t> widths;
    Data<T> data;
    std::vector<std::unique_ptr<Net<T>>> nets;

    Held(int64_t count, const T* thetas, int64_t dim, const Shape& shape, const Data<T>& samples)
        : widths(shape.widths, shape.widths + shape.depth + 1), data(samples) {
        const Shape own{shape.depth, widths.data(), shape.bias, shape.activation, shape.loss};
        for (int64_t i = 0; i < count; ++i) {
            nets.push_back(std::make_unique<Net<T>>(own, PRODUCTS, 1, data.count));
            nets.back()->hold(thetas + i * dim, data);
        }
    }
};

template <class T>
void multiplied(int64_t nets, const T* thetas, int64_t dim, const Shape& shape, const Data<T>& data, const T* vectors,
                int64_t count, T* products) {
    const int64_t some = std::max(int64_t(1), std::min(count, VECTORS_BYTES / int64_t(2 * dim * sizeof(T))));
    Net<T> net(shape, PRODUCTS, some);
    for (int64_t i = 0; i < nets; ++i)
        for (int64_t first = 0; first < count; first += some) {
            const int64_t place = (i * count + first) * dim;
            net.products(thetas + i * dim, data, vectors + place, std::min(some, count - first), dim, products + place);
        }
}

}  // namespace

// All return 0, or 1 where memory ran out; hold_… null there, else what release_… takes back. Rates are those of the first step's nets, of the second's, … Null: ``index`` for the first ``count`` samples, ``gradients``, ``losses`` and
// ``wrong`` where they are not wanted, ``labels`` or ``targets``, whichever is not asked for.
#define LANDSWEEP_DENSE(SUFFIX, T)                                                                                     \
    extern "C" int evaluate_##SUFFIX(int64_t nets, const T* thetas, int64_t dim, int64_t depth, const int64_t* widths,  \
                                     int bias, int activation, int loss, const T* inputs, const int64_t* labels,       \
                                     const T* targets, int64_t count, const int64_t* index, int64_t index_stride,      \
                                     T* gradients, double* losses, double* wrong) {                                    \
        return guarded([&] {                                                                                           \
            evaluated<T>(nets, thetas, dim, {depth, widths, bias, activation, loss},                                   \
                         {inputs, labels, targets, index, count}, index_stride, gradients, losses, wrong);             \
        });                                                                                                            \
    }                                                                                                                  \
    extern "C" int descend_##SUFFIX(int64_t nets, T* thetas, int64_t dim, int64_t depth, const int64_t* widths, int bias, \
                                    int activation, int loss, const T* inputs, const int64_t* labels,                  \
                                    const T* targets, int64_t indices, const int64_t* index, int64_t index_stride,     \
                                    T* velocities, const T* rates, int64_t rate_stride, const T* momenta,              \
                                    const T* decays, int nesterov, int64_t size, int64_t steps) {                      \
        return guarded([&] {                                                                                           \
            descended<T>(nets, thetas, dim, {depth, widths, bias, activation, loss},                                   \
                         {inputs, labels, targets, index, 0}, index_stride, velocities, momenta, decays,               \
                         {0, 0, nesterov != 0, rates, rate_stride, size, indices}, steps);                             \
        });                                                                                                            \
    }                                                                                                                  \
    extern "C" void* hold_##SUFFIX(int64_t nets, const T* thetas, int64_t dim, int64_t depth, const int64_t* widths,    \
                                   int bias, int activation, int loss, const T* inputs, const int64_t* labels,         \
                                   const T* targets, int64_t count) {                                                  \
        void* held = nullptr;                                                                                          \
        guarded([&] {                                                                                                  \
            held = new Held<T>(nets, thetas, dim, {depth, widths, bias, activation, loss},                             \
                               {inputs, labels, targets, nullptr, count});                                             \
        });                                                                                                            \
        return held;                                                                                                   \
    }                                                                                                                  \
    extern "C" void release_##SUFFIX(void* held) { delete static_cast<Held<T>*>(held); }                               \
    extern "C" int multiply_held_##SUFFIX(void* held, int64_t first, int64_t nets, const T* vectors, int64_t dim,       \
                                          int64_t many, T* products) {                                                 \
        return guarded([&] {                                                                                           \
            Held<T>& all = *static_cast<Held<T>*>(held);                                                               \
            for (int64_t i = 0; i < nets; ++i)                                                                         \
                all.nets[first + i]->products(all.data, vectors + i * many * dim, many, dim, products + i * many * dim); \
        });                                                                                                            \
    }                                                                                                                  \
    extern "C" int multiply_##SUFFIX(int64_t nets, const T* thetas, int64_t dim, int64_t depth, const int64_t* widths,  \
                                     int bias, int activation, int loss, const T* inputs, const int64_t* labels,       \
                                     const T* targets, int64_t count, const T* vectors, int64_t many, T* products) {   \
        return guarded([&] {                                                                                           \
            multiplied<T>(nets, thetas, dim, {depth, widths, bias, activation, loss},                                  \
                          {inputs, labels, targets, nullptr, count}, vectors, many, products);                         \
        });                                                                                                            \
    }

LANDSWEEP_DENSE(float32, float)
LANDSWEEP_DENSE(float64, double)
