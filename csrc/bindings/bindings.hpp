// The parts of benchrouter._core that have a file of their own.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "bindings/given.hpp"
#include "common/run.hpp"
#include "embeddings/attention.hpp"

namespace benchrouter {

void bind_attention(pybind11::module_& module);
void bind_cells(pybind11::module_& module);
void bind_expect(pybind11::module_& module);
void bind_faults(pybind11::module_& module);
void bind_quantize(pybind11::module_& module);
void bind_search(pybind11::module_& module);
void bind_votes(pybind11::module_& module);
void bind_device(pybind11::module_& module);  // where it is built with CUDA

// The instruction set of that name, refused unless this machine runs it; "auto" = the widest.
Simd checked_simd(const std::string& name);

// How a call is to be run, refused unless this machine can.
Run checked_run(int64_t threads, const std::string& simd);

// The same of the arguments "threads" and "simd".
Run checked_run(const Given& given);

// Calls compute() while other threads of Python may run.
template <class Compute>
auto without_gil(const Compute& compute) {
    const py::gil_scoped_release released;
    return compute();
}

// Of an array of tokens: bfloat16 has no NumPy dtype, so its bits come as uint16.
TokenType token_type(const pybind11::object& array);

}  // namespace benchrouter
