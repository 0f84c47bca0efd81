// Work in chunks over a few threads. Chunks are handed out in order, and a fault stops the handing
// out: so the fault of the lowest chunk is always found, and the answer does not depend on threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

#include "common/run.hpp"

namespace benchrouter {

// Processors that this process may use.
inline int available_threads() {
#if defined(__linux__)
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return CPU_COUNT(&allowed);
#endif
    const unsigned found = std::thread::hardware_concurrency();
    return found > 0 ? static_cast<int>(found) : 1;
}

inline int threads_for(int asked, int64_t chunks) {
    const int64_t wanted = asked > 0 ? asked : available_threads();
    return static_cast<int>(wanted < chunks ? wanted : (chunks > 0 ? chunks : 1));
}

// Calls body(chunk, thread) -> Fault for each chunk; the calling thread is thread 0. What a body
// throws (std::bad_alloc) is thrown again here, when all threads have ended.
template <class Body>
Fault for_chunks(int64_t chunks, int threads, const Body& body) {
    std::atomic<int64_t> next{0};
    std::atomic<bool> stop{false};
    std::vector<Fault> faults(static_cast<size_t>(threads));
    std::vector<int64_t> where(static_cast<size_t>(threads), chunks);
    const auto work = [&](int thread) {
        while (!stop.load(std::memory_order_relaxed)) {
            const int64_t chunk = next.fetch_add(1, std::memory_order_relaxed);
            if (chunk >= chunks) return;
            const Fault fault = body(chunk, thread);
            if (!fault) continue;
            faults[static_cast<size_t>(thread)] = fault;
            where[static_cast<size_t>(thread)] = chunk;
            stop.store(true, std::memory_order_relaxed);
        }
    };
    std::vector<std::exception_ptr> thrown(static_cast<size_t>(threads));
    const auto guarded = [&](int thread) {
        try {
            work(thread);
        } catch (...) {
            thrown[static_cast<size_t>(thread)] = std::current_exception();
            stop.store(true, std::memory_order_relaxed);
        }
    };
    std::vector<std::thread> others;
    others.reserve(static_cast<size_t>(threads));
    for (int t = 1; t < threads; ++t) {
        try {
            others.emplace_back(guarded, t);
        } catch (const std::system_error&) {
            break;  // no more threads to be had: those that started do the work
        }
    }
    guarded(0);
    for (std::thread& other : others) other.join();
    for (const std::exception_ptr& exception : thrown) {
        if (exception) std::rethrow_exception(exception);
    }
    size_t first = 0;
    for (size_t t = 1; t < faults.size(); ++t) {
        if (where[t] < where[first]) first = t;
    }
    return faults[first];
}

}  // namespace benchrouter
