// What benchrouter.votes.on_device calls where a device found a value that it refuses: the checks
// and the words of the CPU.
#include "bindings/bindings.hpp"
#include "bindings/checks.hpp"
#include "votes/vote_cuda.hpp"

namespace benchrouter {
namespace {

void refuse_fault_binding(const std::string& kind, const py::object& found, int64_t row,
                          int64_t column, int64_t records) {
    if (kind == "id")
        refuse_id("neighbours", "record number", records, py::cast<int64_t>(found),
                  at(row, column));
    refuse_number(kind == "weight"       ? FaultKind::weight
                  : kind == "similarity" ? FaultKind::similarity
                                         : FaultKind::score,
                  py::cast<double>(found), row, column);
}

void check_finite_binding(const char* name, const py::array& values) {
    if (values.ndim() == 1) {
        const auto view = read<float, 1>(values, name);
        check_finite(name, view.data, view.shape[0]);
    } else {
        const auto view = read<float, 2>(values, name);
        check_finite(name, view.data, view.shape[0], view.shape[1]);
    }
}

}  // namespace

void bind_faults(py::module_& module) {
    py::list kinds;
    for (const char* const kind : kDeviceFaults) kinds.append(kind);
    module.attr("device_faults") = kinds;
    module.def("refuse_fault", &refuse_fault_binding, py::arg("kind"), py::arg("found"),
               py::arg("row"), py::arg("column"), py::arg("records"));
    module.def("check_finite", &check_finite_binding, py::arg("name"), py::arg("values"));
    module.def("check_preference", [](const py::object& preference) {
        checked_order(read<int32_t, 1>(preference, "preference"));
    });
    module.def("check_allowed",
               [](const py::object& allowed, int64_t fallback_model, int64_t home) {
                   checked_allowed(read<bool, 1>(allowed, "allowed"), fallback_model, home);
               });
}

}  // namespace benchrouter
