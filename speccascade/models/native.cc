// y[r, o] = sum_i x[r, i] * w[o, i] for few rows r, bound by how fast w is read.
//
// A foreign function of XLA on CPU; native.py says when it is called. Each matrix row is read once
// and widened to float32 in registers; sums are float32, in an order that depends on neither the
// number of rows nor that of threads.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

constexpr int kLanes = 16;
constexpr int64_t kChunk = 1 << 18;  // bytes of w that a thread takes at a time

using Floats = float __attribute__((vector_size(4 * kLanes)));
using Words = uint32_t __attribute__((vector_size(4 * kLanes)));
using Halves = uint16_t __attribute__((vector_size(2 * kLanes)));

template <class V>
inline V Load(const void* p) {
  V v;
  std::memcpy(&v, p, sizeof(V));
  return v;
}

inline float Widen(float x) { return x; }
inline float Widen(int8_t x) { return x; }
inline float Widen(uint16_t x) {  // bfloat16: the upper half of a float32
  const uint32_t bits = uint32_t{x} << 16;
  return Load<float>(&bits);
}

inline Floats Lanes(const float* p) { return Load<Floats>(p); }
inline Floats Lanes(const uint16_t* p) {
  return (Floats)(__builtin_convertvector(Load<Halves>(p), Words) << 16);
}
inline Floats Lanes(const int8_t* p) {
#if defined(__AVX512F__)  // GCC 12 takes the general form apart, lane by lane
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
#else
  Floats v;
  for (int i = 0; i < kLanes; ++i) v[i] = p[i];
  return v;
#endif
}

inline float Sum(Floats v) {
  float sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += v[i];
  return sum;
}

// kRows of x by kOuts rows of w: as many sums as the registers hold.
template <class W, int kRows, int kOuts>
inline void Tile(const float* x, const W* w, float* y, int64_t in, int64_t out) {
  Floats sums[kRows][kOuts] = {};
  int64_t i = 0;
  for (; i + kLanes <= in; i += kLanes) {
    Floats v[kOuts];
    for (int o = 0; o < kOuts; ++o) v[o] = Lanes(w + o * in + i);
    for (int r = 0; r < kRows; ++r) {
      const Floats a = Lanes(x + r * in + i);
      for (int o = 0; o < kOuts; ++o) sums[r][o] += a * v[o];
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int o = 0; o < kOuts; ++o) {
      float sum = Sum(sums[r][o]);
      for (int64_t j = i; j < in; ++j) sum += x[r * in + j] * Widen(w[o * in + j]);
      y[r * out + o] = sum;
    }
  }
}

template <class W, int kRows>
void Rows(const float* x, const W* w, float* y, int64_t in, int64_t out, int64_t begin,
          int64_t end) {
  constexpr int kOuts = kRows <= 6 ? 4 : 2;
  int64_t o = begin;
  for (; o + kOuts <= end; o += kOuts) Tile<W, kRows, kOuts>(x, w + o * in, y + o, in, out);
  for (; o < end; ++o) Tile<W, kRows, 1>(x, w + o * in, y + o, in, out);
}

template <class W>
void Part(int64_t rows, const float* x, const W* w, float* y, int64_t in, int64_t out,
          int64_t begin, int64_t end) {
  switch (rows) {
#define ROWS(n) \
  case n:       \
    return Rows<W, n>(x, w, y, in, out, begin, end);
    ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6) ROWS(7) ROWS(8) ROWS(9) ROWS(10)
#undef ROWS
  }
}

// What threads share; whoever comes late finds nothing left to take.
struct Work {
  std::atomic<int64_t> next{0}, done{0};
};

template <class W>
void All(ffi::ThreadPool& pool, int64_t rows, const float* x, const W* w, float* y, int64_t in,
         int64_t out) {
  const int64_t step = std::max<int64_t>(4, kChunk / (in * int64_t{sizeof(W)}) / 4 * 4);
  const int64_t parts = (out + step - 1) / step;
  auto work = std::make_shared<Work>();
  auto run = [=] {
    for (int64_t part; (part = work->next.fetch_add(1)) < parts;) {
      Part<W>(rows, x, w, y, in, out, part * step, std::min(out, (part + 1) * step));
      work->done.fetch_add(1, std::memory_order_release);
    }
  };
  const int64_t helpers = std::min<int64_t>(pool.num_threads(), parts) - 1;
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule([run] { run(); });
  run();
  while (work->done.load(std::memory_order_acquire) < parts) std::this_thread::yield();
}

ffi::Error Product(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::AnyBuffer w,
                   ffi::ResultBuffer<ffi::F32> y) {
  if (x.dimensions().size() != 2 || w.dimensions().size() != 2 ||
      x.dimensions()[1] != w.dimensions()[1]) {
    return ffi::Error::InvalidArgument("rows must be as long as those of the weights");
  }
  const int64_t rows = x.dimensions()[0], in = x.dimensions()[1], out = w.dimensions()[0];
  if (rows < 1 || rows > 10) return ffi::Error::InvalidArgument("rows must be 1 to 10");
  const void* data = w.untyped_data();
  switch (w.element_type()) {
    case ffi::F32:
      All(pool, rows, x.typed_data(), static_cast<const float*>(data), y->typed_data(), in, out);
      break;
    case ffi::BF16:
      All(pool, rows, x.typed_data(), static_cast<const uint16_t*>(data), y->typed_data(), in,
          out);
      break;
    case ffi::S8:
      All(pool, rows, x.typed_data(), static_cast<const int8_t*>(data), y->typed_data(), in, out);
      break;
    default:
      return ffi::Error::InvalidArgument("weights must be float32, bfloat16 or int8");
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(SpeccascadeProduct, Product,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::Buffer<ffi::F32>>());
