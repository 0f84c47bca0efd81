// benchrouter._core.Expectation and expect: checks arguments, releases the GIL, calls the kernels.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <string>
#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/checks.hpp"
#include "bindings/inputs.hpp"
#include "bindings/learnt.hpp"

namespace benchrouter {
namespace {

// What the rule `auto` learnt, in arrays that were checked once and are kept alive. Datasets are
// copied: they are places in memory, whatever becomes of the caller's array.
class Learnt {
public:
    Learnt(const py::object& dataset, const py::object& own_distance, const py::object& standing,
           const py::object& share, const Pair& apart, const Pair& level,
           const py::object& of_dataset, const py::object& linear, const py::object& offset,
           const std::array<double, 4>& gate, const Pair& margin, const Pair& tolerance)
        : kept_(py::make_tuple(own_distance, standing, share, of_dataset, linear, offset)),
          arrays_{read<int32_t, 1>(dataset, "dataset"),
                  read<float, 1>(own_distance, "own_distance"),
                  read<double, 1>(standing, "standing"),
                  read<double, 1>(share, "share"),
                  read<float, 2>(of_dataset, "of_dataset"),
                  read<float, 2>(linear, "linear"),
                  read<double, 1>(offset, "offset")} {
        datasets_.assign(arrays_.dataset.data, arrays_.dataset.data + arrays_.records());
        arrays_.dataset.data = datasets_.data();
        learnt_ = checked_expectation(arrays_, {apart, level, gate, margin, tolerance});
        const int64_t records = arrays_.records(), models = arrays_.models();
        for (int64_t i = 0; i < records; ++i) {
            const float own = arrays_.own_distance.data[i];
            if (datasets_[i] < 0 || datasets_[i] >= learnt_.datasets) {
                refuse_value("dataset must be in [0, " + std::to_string(learnt_.datasets) +
                             "), got " + std::to_string(datasets_[i]) + at(i));
            }
            if (!(own >= 0.0f && std::isfinite(own))) {
                refuse_value("own_distance must be finite and at least 0, got " + number(own) +
                             at(i));
            }
        }
        check_finite("standing", learnt_.standing, models);
        check_finite("share", learnt_.share, models);
        check_finite("offset", learnt_.offset, 2 * learnt_.width);
        check_finite("of_dataset", learnt_.of_dataset, learnt_.datasets, 2 * learnt_.width);
        check_finite("linear", learnt_.linear, learnt_.dim, 2 * learnt_.width);
    }
    Learnt(const Learnt&) = delete;
    Learnt& operator=(const Learnt&) = delete;
    const Expectation& expectation() const { return learnt_; }
    const LearntArrays& arrays() const { return arrays_; }

private:
    py::tuple kept_;
    LearntArrays arrays_;
    std::vector<int32_t> datasets_;
    Expectation learnt_{};
};

py::tuple expect_binding(const py::kwargs& arguments) {
    Given given(arguments, false);
    const auto& learnt = py::cast<const Learnt&>(given["learnt"]);
    given.add_inputs(learnt.arrays().extents());
    const Run run = checked_run(given);
    const ExpectTask task = expect_task(given, learnt.arrays(), learnt.expectation());
    const Fault fault = without_gil(
        [&] { return expect(task.ballots, task.decision, task.expectation, task.expected, run); });
    if (fault.kind == FaultKind::query) {
        const Expectation& e = task.expectation;
        refuse_number(fault.kind, e.queries[fault.row * e.dim + fault.column], fault.row,
                      fault.column);
    }
    refuse_fault(fault, task.ballots, task.decision.similarities);
    const py::tuple made = given.outputs();
    return py::make_tuple(made[py::slice(0, 5, 1)], made[5]);
}

}  // namespace

void bind_expect(py::module_& module) {
    module.attr("expect_columns") = kColumns;
    py::class_<Learnt>(module, "Expectation", "What the rule `auto` learnt, checked once.")
        .def(py::init<const py::object&, const py::object&, const py::object&, const py::object&,
                      const Pair&, const Pair&, const py::object&, const py::object&,
                      const py::object&, const std::array<double, 4>&, const Pair&, const Pair&>(),
             py::kw_only(), py::arg("dataset"), py::arg("own_distance"), py::arg("standing"),
             py::arg("share"), py::arg("apart"), py::arg("level"), py::arg("of_dataset"),
             py::arg("linear"), py::arg("offset"), py::arg("gate"), py::arg("margin"),
             py::arg("tolerance"));
    module.def("expect", &expect_binding);
}

}  // namespace benchrouter
