// The parts of benchrouter._core that have a file of their own.
#pragma once

#include <pybind11/pybind11.h>

namespace benchrouter {

void bind_cells(pybind11::module_& module);

}  // namespace benchrouter
