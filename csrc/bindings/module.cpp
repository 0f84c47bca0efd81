// benchrouter._core: the module, and how its calls run.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/given.hpp"

namespace benchrouter {
namespace {

const char* const kSimdNames[] = {"scalar", "avx2", "avx512"};

std::vector<std::string> simd_levels() {
    std::vector<std::string> levels;
    for (int level = 0; level <= static_cast<int>(widest_simd()); ++level)
        levels.push_back(kSimdNames[level]);
    return levels;
}

}  // namespace

Simd checked_simd(const std::string& name) {
    if (name == "auto") return widest_simd();
    std::string known = "'auto'";
    for (int level = 0; level <= static_cast<int>(widest_simd()); ++level) {
        if (name == kSimdNames[level]) return static_cast<Simd>(level);
        known += std::string(", '") + kSimdNames[level] + "'";
    }
    refuse_value("simd must be one of " + known + " on this machine, got '" + name + "'");
}

Run checked_run(int64_t threads, const std::string& simd) {
    if (threads < 0)
        refuse_value("threads must be 0 (all) or more, got " + std::to_string(threads));
    return {static_cast<int>(threads > 1024 ? 1024 : threads), checked_simd(simd)};
}

Run checked_run(const Given& given) {
    return checked_run(given.get<int64_t>("threads"), given.get<std::string>("simd"));
}

PYBIND11_MODULE(_core, module) {
    module.doc() = "Votes, decisions and exact ranking over NumPy arrays; see benchrouter.votes.";
#if defined(BR_SANITIZED)
    module.attr("sanitized") = true;
    module.def("overrun", [] {
        const std::vector<float> few(3);
        return *(static_cast<const volatile float*>(few.data()) + few.size());
    });
#else
    module.attr("sanitized") = false;
#endif
    module.def("simd_levels", &simd_levels,
               "Instruction sets that this machine runs, narrowest first.");
    bind_attention(module);
    bind_cells(module);
    bind_expect(module);
    bind_faults(module);
    bind_quantize(module);
    bind_search(module);
    bind_votes(module);
#if defined(BR_CUDA)
    module.attr("has_cuda") = true;
    bind_device(module);
#else
    module.attr("has_cuda") = false;
#endif
}

}  // namespace benchrouter
