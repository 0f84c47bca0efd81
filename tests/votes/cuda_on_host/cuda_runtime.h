// Stands in for CUDA's header, to run the kernels of csrc/*/*_cuda.cu on the host, where tests can
// compare them with the CPU's without a device. A thread is a fiber; a warp's fibers run one after
// the other up to a collective, which all 32 must reach. Nothing but what these files use.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(...)

struct dim3 {
    explicit dim3(unsigned x_ = 1) : x(x_) {}
    unsigned x;
};

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidDevice = 101 };
using cudaStream_t = void*;
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    cudaStream_t stream = nullptr;
};

namespace cuda_on_host {

constexpr int kWarp = 32;
constexpr std::size_t kStack = 64 << 10;

struct Fiber {
    jmp_buf place;
    bool done = false;
    int collectives = 0;  // that it has reached
};

struct Warp {
    Fiber fibers[kWarp];
    // By parity of the collective: a fiber may reach the next one before the others have read this.
    char slots[2][kWarp][8];
    jmp_buf scheduler;
    int running = 0;
};

inline Warp warp;
inline void (*body)(const void*);
inline const void* body_arguments;

// Back to the scheduler, until it is this fiber's turn again. (Jumps, because swapcontext() asks
// the kernel for the signal mask.)
inline void yield() {
    if (_setjmp(warp.fibers[warp.running].place) == 0) _longjmp(warp.scheduler, 1);
}

// A fiber lives on from warp to warp.
inline void live() {
    for (;; yield()) {
        body(body_arguments);
        warp.fibers[warp.running].done = true;
    }
}

inline void make_fibers() {
    static std::vector<char> stacks(kWarp * kStack);
    for (warp.running = 0; warp.running < kWarp; ++warp.running) {
        ucontext_t here, fiber;
        getcontext(&fiber);
        fiber.uc_stack.ss_sp = stacks.data() + warp.running * kStack;
        fiber.uc_stack.ss_size = kStack;
        fiber.uc_link = nullptr;
        makecontext(&fiber, [] { yield(), live(); }, 0);
        if (_setjmp(warp.scheduler) == 0) swapcontext(&here, &fiber);
    }
}

// Waits until every thread of the warp is here; returns the values that they brought.
template <class T>
const char (*meet(T value))[8] {
    static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
    auto& slots = warp.slots[warp.fibers[warp.running].collectives++ % 2];
    std::memcpy(slots[warp.running], &value, sizeof value);
    yield();
    return slots;
}

template <class T>
T value_of(const char (*slots)[8], int lane) {
    T value;
    std::memcpy(&value, slots[lane], sizeof value);
    return value;
}

// Runs the 32 threads of one warp.
inline void run_warp() {
    static const bool made = (make_fibers(), true);
    (void)made;
    for (Fiber& fiber : warp.fibers) fiber.done = false;
    for (int alive = kWarp; alive > 0;) {
        alive = 0;
        for (warp.running = 0; warp.running < kWarp; ++warp.running) {
            Fiber& fiber = warp.fibers[warp.running];
            if (fiber.done) continue;
            if (_setjmp(warp.scheduler) == 0) _longjmp(fiber.place, 1);
            alive += !warp.fibers[warp.running].done;
        }
        if (alive % kWarp != 0) {
            std::fprintf(stderr, "%d threads of a warp wait for others that have ended\n", alive);
            std::abort();
        }
    }
}

}  // namespace cuda_on_host

inline dim3 threadIdx_base(0);
inline dim3 blockIdx(0);
#define threadIdx dim3(threadIdx_base.x + static_cast<unsigned>(cuda_on_host::warp.running))

template <class T>
T __shfl_sync(unsigned, T value, int lane, int width = 32) {
    const int own = cuda_on_host::warp.running;
    return cuda_on_host::value_of<T>(cuda_on_host::meet(value), own / width * width + lane % width);
}

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask, int = 32) {
    const int own = cuda_on_host::warp.running;
    return cuda_on_host::value_of<T>(cuda_on_host::meet(value), own ^ mask);
}

inline unsigned __ballot_sync(unsigned, int predicate) {
    const auto slots = cuda_on_host::meet(predicate);
    unsigned found = 0;
    for (int t = 0; t < 32; ++t)
        found |= static_cast<unsigned>(cuda_on_host::value_of<int>(slots, t) != 0) << t;
    return found;
}

inline void __syncwarp() {
    cuda_on_host::meet(0);
}

inline int __popc(unsigned bits) {
    return __builtin_popcount(bits);
}

inline int __float_as_int(float value) {
    int bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float __int_as_float(int bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline long long atomicMin(long long* at, long long value) {
    const long long before = *at;
    if (value < before) *at = value;
    return before;
}

// The host is device 0 and has no other.
inline cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}

inline cudaError_t cudaSetDevice(int device) {
    return device == 0 ? cudaSuccess : cudaErrorInvalidDevice;
}

inline const char* cudaGetErrorString(cudaError_t code) {
    return code == cudaSuccess ? "no error" : "invalid device ordinal";
}

template <class... Expected, class... Given>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Expected...),
                               Given&&... given) {
    const auto call = [&] { kernel(given...); };
    cuda_on_host::body = [](const void* arguments) {
        (*static_cast<const decltype(call)*>(arguments))();
    };
    cuda_on_host::body_arguments = &call;
    for (blockIdx.x = 0; blockIdx.x < config->gridDim.x; ++blockIdx.x) {
        for (threadIdx_base.x = 0; threadIdx_base.x < config->blockDim.x;
             threadIdx_base.x += cuda_on_host::kWarp)
            cuda_on_host::run_warp();
    }
    return cudaSuccess;
}
