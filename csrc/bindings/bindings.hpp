// The parts of benchrouter._core that have a file of their own.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "common/run.hpp"
#include "embeddings/attention.hpp"

namespace benchrouter {

void bind_attention(pybind11::module_& module);
void bind_cells(pybind11::module_& module);
void bind_expect(pybind11::module_& module);
void bind_quantize(pybind11::module_& module);
void bind_search(pybind11::module_& module);
void bind_cuda(pybind11::module_& module);  // where it is built with CUDA

// The instruction set of that name, refused unless this machine runs it; "auto" = the widest.
Simd checked_simd(const std::string& name);

// How a call is to be run, refused unless this machine can.
Run checked_run(int64_t threads, const std::string& simd);

// Reports a pair whose similarity is not finite, if that is the fault.
void refuse_similarity(const Fault& fault);

// Of an array of tokens: bfloat16 has no NumPy dtype, so its bits come as uint16.
TokenType token_type(const pybind11::object& array);

}  // namespace benchrouter
