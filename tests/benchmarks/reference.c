/* Reference implementations of the workloads W1-W4, for comparison with generated code.
 *
 * scalar_*: one trajectory after the other, xoshiro256++ and a ziggurat of 256 layers: good C as one writes it.
 * simd_*:   LANES trajectories side by side in loops that the compiler vectorises, one xoshiro256++ per lane, Box-Muller without
 *           branches, two steps per pair of normals.
 *
 * All have the signature (trajectories, steps, h, start, seed, out): h the numbers of the workload, start the d parameters, out
 * (trajectories, d). The optimizer's own variables start at 0. Compile with -fno-tree-slp-vectorize: gcc at -O3 packs the generator's
 * words into vectors, which makes it 1.5 times slower.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef uint64_t u64;

static u64 splitmix(u64 *x) {
    u64 z = (*x += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* where the words of trajectory t come from */
static u64 stream(u64 seed, long t) {
    u64 start = splitmix(&seed);
    return start + (u64)t * 4 * 0x9E3779B97F4A7C15u;
}

#define ROTL(x, k) (((x) << (k)) | ((x) >> (64 - (k))))
#define INLINE static inline __attribute__((always_inline))

/* ---- scalar ------------------------------------------------------------------------------------------------------------------ */

typedef struct {
    u64 a, b, c, d;
} Generator;

INLINE u64 next(Generator *g) {
    u64 out = ROTL(g->a + g->d, 23) + g->a, t = g->b << 17;
    g->c ^= g->a;
    g->d ^= g->b;
    g->b ^= g->c;
    g->a ^= g->d;
    g->c ^= t;
    g->d = ROTL(g->d, 45);
    return out;
}

static Generator generator(u64 seed, long t) {
    u64 k = stream(seed, t);
    Generator g;
    g.a = splitmix(&k);
    g.b = splitmix(&k);
    g.c = splitmix(&k);
    g.d = splitmix(&k);
    return g;
}

#define TAIL 3.6541528853610088 /* Marsaglia and Tsang (2000), 256 layers of area AREA */
#define AREA 0.00492867323399
static u64 layer_k[256];
static double layer_w[256], layer_f[256];

__attribute__((constructor)) static void make_layers(void) {
    const double size = 4503599627370496.0; /* 2^52 */
    double here = TAIL, above = TAIL, q = AREA / exp(-0.5 * TAIL * TAIL);
    layer_k[0] = (u64)(here / q * size);
    layer_k[1] = 0;
    layer_w[0] = q / size;
    layer_w[255] = here / size;
    layer_f[0] = 1.0;
    layer_f[255] = exp(-0.5 * here * here);
    for (int i = 254; i >= 1; i--) {
        here = sqrt(-2 * log(AREA / here + exp(-0.5 * here * here)));
        layer_k[i + 1] = (u64)(here / above * size);
        above = here;
        layer_f[i] = exp(-0.5 * here * here);
        layer_w[i] = here / size;
    }
}

INLINE double uniform(Generator *g) { return ((next(g) >> 11) + 0.5) * (1.0 / 9007199254740992.0); }

static __attribute__((noinline)) double rare(Generator *g, u64 i, double x, int *accepted) {
    *accepted = 1;
    if (i == 0) {
        for (;;) {
            double far = -log(uniform(g)) / TAIL, height = -log(uniform(g));
            if (2 * height > far * far)
                return x < 0 ? -TAIL - far : TAIL + far;
        }
    }
    *accepted = (layer_f[i - 1] - layer_f[i]) * uniform(g) + layer_f[i] < exp(-0.5 * x * x);
    return x;
}

INLINE double normal(Generator *g) {
    for (;;) {
        u64 bits = next(g), i = bits & 255, size = bits >> 12;
        double x = (double)(int64_t)size * layer_w[i];
        x = bits & 256 ? -x : x;
        if (__builtin_expect(size < layer_k[i], 1))
            return x;
        int accepted;
        x = rare(g, i, x, &accepted);
        if (accepted)
            return x;
    }
}

/* h: eta, alpha */
void scalar_w1(long trajectories, long steps, const double *h, const double *start, u64 seed, double *out) {
    const double eta = h[0], sigma = sqrt(2 * h[1]);
    for (long t = 0; t < trajectories; t++) {
        Generator g = generator(seed, t);
        double x = start[0], y = start[1];
        for (long k = 0; k < steps; k++) {
            double s = 1 + x * x, gx = 2 * x * y * y, gy = 2 * s * y + sigma * sqrt(s) * normal(&g);
            x -= eta * gx;
            y -= eta * gy;
        }
        out[2 * t] = x;
        out[2 * t + 1] = y;
    }
}

/* h: eta, mu, alpha */
void scalar_w2(long trajectories, long steps, const double *h, const double *start, u64 seed, double *out) {
    const double eta = h[0], mu = h[1], sigma = sqrt(2 * h[2]);
    for (long t = 0; t < trajectories; t++) {
        Generator g = generator(seed, t);
        double x = start[0], y = start[1], bx = 0, by = 0;
        for (long k = 0; k < steps; k++) {
            double s = 1 + x * x;
            bx = mu * bx + 2 * x * y * y;
            by = mu * by + 2 * s * y + sigma * sqrt(s) * normal(&g);
            x -= eta * bx;
            y -= eta * by;
        }
        out[2 * t] = x;
        out[2 * t + 1] = y;
    }
}

/* p*b, and 0 before it becomes a denormal number, with which every further step would be slow */
INLINE double decay(double p, double b) { return p > 1e-200 ? p * b : 0; }

/* h: eta, beta1, beta2, eps, alpha, theta */
void scalar_w3(long trajectories, long steps, const double *h, const double *start, u64 seed, double *out) {
    const double eta = h[0], b1 = h[1], b2 = h[2], eps = h[3], sigma = sqrt(2 * h[4]), C = cos(h[5]), S = sin(h[5]);
    for (long t = 0; t < trajectories; t++) {
        Generator g = generator(seed, t);
        double x = start[0], y = start[1], mx = 0, my = 0, vx = 0, vy = 0, p1 = 1, p2 = 1;
        for (long k = 0; k < steps; k++) {
            double s = x * C - y * S, w = x * S + y * C, a = 1 + s * s;
            double along = 2 * s * w * w, across = 2 * a * w + sigma * sqrt(a) * normal(&g);
            double gx = C * along + S * across, gy = C * across - S * along;
            p1 = decay(p1, b1);
            p2 = decay(p2, b2);
            double rate = eta / (1 - p1), unbias = 1 / (1 - p2);
            mx = b1 * mx + (1 - b1) * gx;
            my = b1 * my + (1 - b1) * gy;
            vx = b2 * vx + (1 - b2) * gx * gx;
            vy = b2 * vy + (1 - b2) * gy * gy;
            x -= rate * mx / (sqrt(vx * unbias) + eps);
            y -= rate * my / (sqrt(vy * unbias) + eps);
        }
        out[2 * t] = x;
        out[2 * t + 1] = y;
    }
}

/* h: eta, sigma, then M (5 x 5, row-major); z is U, then V, both 5 x 5 */
#define W 5
void scalar_w4(long trajectories, long steps, const double *h, const double *start, u64 seed, double *out) {
    const double eta = h[0], sigma = h[1], *M = h + 2;
    for (long t = 0; t < trajectories; t++) {
        Generator g = generator(seed, t);
        double U[W][W], V[W][W], R[W][W], A[W][W], N[W][W];
        memcpy(U, start, sizeof U);
        memcpy(V, start + W * W, sizeof V);
        for (long k = 0; k < steps; k++) {
            for (int i = 0; i < W; i++)
                for (int j = 0; j < W; j++)
                    N[i][j] = normal(&g);
            for (int i = 0; i < W; i++)
                for (int j = 0; j < W; j++) {
                    double r = sigma * N[i][j] - M[W * i + j];
                    for (int q = 0; q < W; q++)
                        r += U[i][q] * V[j][q];
                    R[i][j] = 2 * eta * r;
                }
            memcpy(A, U, sizeof U);
            for (int i = 0; i < W; i++)
                for (int j = 0; j < W; j++)
                    for (int q = 0; q < W; q++)
                        U[i][q] -= R[i][j] * V[j][q];
            for (int j = 0; j < W; j++)
                for (int i = 0; i < W; i++)
                    for (int q = 0; q < W; q++)
                        V[j][q] -= R[i][j] * A[i][q];
        }
        memcpy(out + 2 * W * W * t, U, sizeof U);
        memcpy(out + 2 * W * W * t + W * W, V, sizeof V);
    }
}

/* ---- SIMD -------------------------------------------------------------------------------------------------------------------- */

#ifndef LANES
#define LANES 32
#endif
#define EACH_LANE _Pragma("GCC ivdep") for (int l = 0; l < LANES; l++)
#define ROWS(name, n) double name[n][LANES] __attribute__((aligned(64)))
#define WORDS(name) u64 name[4][LANES] __attribute__((aligned(64)))

INLINE double as_float(u64 x) {
    double y;
    memcpy(&y, &x, 8);
    return y;
}

INLINE u64 as_bits(double x) {
    u64 y;
    memcpy(&y, &x, 8);
    return y;
}

/* two normals from the generator S[.][l] */
INLINE void two_normals(u64 (*S)[LANES], int l, double *n1, double *n2) {
    Generator g = {S[0][l], S[1][l], S[2][l], S[3][l]};
    u64 p = next(&g), q = next(&g);
    S[0][l] = g.a;
    S[1][l] = g.b;
    S[2][l] = g.c;
    S[3][l] = g.d;
    u64 v = as_bits(2.0 - as_float((p >> 12) | 0x3FF0000000000000u)); /* uniform in (0, 1] */
    int64_t e = (int64_t)(v - 0x3FE6A09E667F3BCDu) >> 52;
    double m = as_float(v - ((u64)e << 52)), s = (m - 1) / (m + 1), w = s * s;
    double lg = ((((((1.0 / 13 * w + 1.0 / 11) * w + 1.0 / 9) * w + 1.0 / 7) * w + 1.0 / 5) * w + 1.0 / 3) * w + 1);
    double r = sqrt(-2 * ((double)e * 0.6931471805599453 + 2 * s * lg));
    double f = (as_float((q >> 12) | 0x3FF0000000000000u) - 1.5) * 1.5707963267948966, z = f * f;
    double sn = (((((-1.0 / 39916800 * z + 1.0 / 362880) * z - 1.0 / 5040) * z + 1.0 / 120) * z - 1.0 / 6) * z + 1) * f;
    double cs = (((((1.0 / 479001600 * z - 1.0 / 3628800) * z + 1.0 / 40320) * z - 1.0 / 720) * z + 1.0 / 24) * z - 0.5) * z + 1;
    cs = as_float(as_bits(cs) ^ ((q & 1) << 63)); /* two low bits choose the quadrant */
    *n1 = r * (q & 2 ? sn : cs);
    *n2 = r * (q & 2 ? cs : sn);
}

static void fill(u64 (*S)[LANES], u64 seed, long first) {
    for (int l = 0; l < LANES; l++) {
        u64 k = stream(seed, first + l);
        for (int i = 0; i < 4; i++)
            S[i][l] = splitmix(&k);
    }
}

static void put(double (*Z)[LANES], int d, const double *start) {
    for (int i = 0; i < d; i++)
        for (int l = 0; l < LANES; l++)
            Z[i][l] = start[i];
}

static void get(double (*Z)[LANES], int d, long first, long trajectories, double *out) {
    for (long l = 0; l < LANES && first + l < trajectories; l++)
        for (int i = 0; i < d; i++)
            out[(first + l) * d + i] = Z[i][l];
}

#define BLOCKS for (long first = 0; first < trajectories; first += LANES)

INLINE void step_w1(double *x, double *y, double n, double eta, double sigma) {
    double s = 1 + *x * *x, gx = 2 * *x * *y * *y, gy = 2 * s * *y + sigma * sqrt(s) * n;
    *x -= eta * gx;
    *y -= eta * gy;
}

void simd_w1(long trajectories, long steps, const double *h, const double *start, u64 seed, double *out) {
    const double eta = h[0], sigma = sqrt(2 * h[1]);
    BLOCKS {
        ROWS(Z, 2);
        WORDS(S);
        put(Z, 2, start);
        fill(S, seed, first);
        for (long k = 0; k < steps; k += 2)
            EACH_LANE {
                double n1, n2, x = Z[0][l], y = Z[1][l];
                two_normals(S, l, &n1, &n2);
                step_w1(&x, &y, n1, eta, sigma);
                step_w1(&x, &y, n2, eta, sigma);
                Z[0][l] = x;
                Z[1][l] = y;
            }
        get(Z, 2, first, trajectories, out);
    }
}

INLINE void step_w2(double *z, double n, double eta, double mu, double sigma) {
    double s = 1 + z[0] * z[0];
    z[2] = mu * z[2] + 2 * z[0] * z[1] * z[1];
    z[3] = mu * z[3] + 2 * s * z[1] + sigma * sqrt(s) * n;
    z[0] -= eta * z[2];
    z[1] -= eta * z[3];
}

void simd_w2(long trajectories, long steps, const double *h, const double *start, u64 seed, double *out) {
    const double eta = h[0], mu = h[1], sigma = sqrt(2 * h[2]);
    BLOCKS {
        ROWS(Z, 4);
        WORDS(S);
        memset(Z, 0, sizeof Z);
        put(Z, 2, start);
        fill(S, seed, first);
        for (long k = 0; k < steps; k += 2)
            EACH_LANE {
                double n1, n2, z[4] = {Z[0][l], Z[1][l], Z[2][l], Z[3][l]};
                two_normals(S, l, &n1, &n2);
                step_w2(z, n1, eta, mu, sigma);
                step_w2(z, n2, eta, mu, sigma);
                Z[0][l] = z[0];
                Z[1][l] = z[1];
                Z[2][l] = z[2];
                Z[3][l] = z[3];
            }
        get(Z, 2, first, trajectories, out);
    }
}

typedef struct {
    double b1, b2, eps, sigma, C, S;
} Adam;

INLINE void step_w3(double *z, double n, double rate, double unbias, const Adam *o) {
    double s = z[0] * o->C - z[1] * o->S, w = z[0] * o->S + z[1] * o->C, a = 1 + s * s;
    double along = 2 * s * w * w, across = 2 * a * w + o->sigma * sqrt(a) * n;
    double gx = o->C * along + o->S * across, gy = o->C * across - o->S * along;
    z[2] = o->b1 * z[2] + (1 - o->b1) * gx;
    z[3] = o->b1 * z[3] + (1 - o->b1) * gy;
    z[4] = o->b2 * z[4] + (1 - o->b2) * gx * gx;
    z[5] = o->b2 * z[5] + (1 - o->b2) * gy * gy;
    z[0] -= rate * z[2] / (sqrt(z[4] * unbias) + o->eps);
    z[1] -= rate * z[3] / (sqrt(z[5] * unbias) + o->eps);
}

void simd_w3(long trajectories, long steps, const double *h, const double *start, u64 seed, double *out) {
    const double eta = h[0];
    const Adam o = {h[1], h[2], h[3], sqrt(2 * h[4]), cos(h[5]), sin(h[5])};
    BLOCKS {
        double p1 = 1, p2 = 1;
        ROWS(Z, 6);
        WORDS(S);
        memset(Z, 0, sizeof Z);
        put(Z, 2, start);
        fill(S, seed, first);
        for (long k = 0; k < steps; k += 2) {
            const double rate1 = eta / (1 - (p1 = decay(p1, o.b1))), unbias1 = 1 / (1 - (p2 = decay(p2, o.b2)));
            const double rate2 = eta / (1 - (p1 = decay(p1, o.b1))), unbias2 = 1 / (1 - (p2 = decay(p2, o.b2)));
            EACH_LANE {
                double n1, n2, z[6] = {Z[0][l], Z[1][l], Z[2][l], Z[3][l], Z[4][l], Z[5][l]};
                two_normals(S, l, &n1, &n2);
                step_w3(z, n1, rate1, unbias1, &o);
                step_w3(z, n2, rate2, unbias2, &o);
                Z[0][l] = z[0];
                Z[1][l] = z[1];
                Z[2][l] = z[2];
                Z[3][l] = z[3];
                Z[4][l] = z[4];
                Z[5][l] = z[5];
            }
        }
        get(Z, 2, first, trajectories, out);
    }
}

/* from Z (U, then V) to Y; N holds the W*W normals of this step */
INLINE void step_w4(double (*Z)[LANES], double (*Y)[LANES], double (*N)[LANES], double (*R)[LANES], double eta, double sigma, const double *M) {
    double(*U)[LANES] = Z, (*V)[LANES] = Z + W * W;
    for (int i = 0; i < W; i++)
        for (int j = 0; j < W; j++) {
            const double m = M[W * i + j];
            EACH_LANE {
                double r = sigma * N[W * i + j][l] - m;
                _Pragma("GCC unroll 8") for (int q = 0; q < W; q++) r += U[W * i + q][l] * V[W * j + q][l];
                R[W * i + j][l] = 2 * eta * r;
            }
        }
    for (int i = 0; i < W; i++)
        for (int q = 0; q < W; q++)
            EACH_LANE {
                double u = U[W * i + q][l], v = V[W * i + q][l];
                _Pragma("GCC unroll 8") for (int j = 0; j < W; j++) u -= R[W * i + j][l] * V[W * j + q][l];
                _Pragma("GCC unroll 8") for (int j = 0; j < W; j++) v -= R[W * j + i][l] * U[W * j + q][l];
                Y[W * i + q][l] = u;
                Y[W * (W + i) + q][l] = v;
            }
}

void simd_w4(long trajectories, long steps, const double *h, const double *start, u64 seed, double *out) {
    const double eta = h[0], sigma = h[1], *M = h + 2;
    BLOCKS {
        ROWS(Z, 2 * W * W);
        ROWS(Y, 2 * W * W);
        ROWS(N, 2 * W * W);
        ROWS(R, W * W);
        WORDS(S);
        put(Z, 2 * W * W, start);
        fill(S, seed, first);
        for (long k = 0; k < steps; k += 2) {
            for (int i = 0; i < W * W; i++)
                EACH_LANE two_normals(S, l, &N[2 * i][l], &N[2 * i + 1][l]);
            step_w4(Z, Y, N, R, eta, sigma, M);
            step_w4(Y, Z, N + W * W, R, eta, sigma, M);
        }
        get(Z, 2 * W * W, first, trajectories, out);
    }
}
