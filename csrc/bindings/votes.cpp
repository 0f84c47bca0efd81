// benchrouter._core.votes, decide and task_scores: check arguments, release the GIL, call the
// kernels, report what they refused.
#include <string>
#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/checks.hpp"
#include "bindings/inputs.hpp"

namespace benchrouter {
namespace {

py::tuple votes_binding(const py::kwargs& arguments) {
    Given given(arguments, false);
    const Ballots in = checked_ballots(given, given.get<double>("prior_weight"));
    const Run run = checked_run(given);
    const auto [votes_out, support_out] = vote_outputs(given, in);
    const Fault fault = without_gil(
        [&, to = votes_out, support = support_out] { return votes(in, to, support, run); });
    refuse_fault(fault, in, nullptr);
    return given.outputs();
}

py::tuple decide_binding(const py::kwargs& arguments) {
    Given given(arguments, false);
    const Ballots in = checked_ballots(given, given.get<double>("prior_weight"));
    std::vector<int64_t> order;
    const auto found = checked_decision(given, in, given.get<std::string>("rule"),
                                        given.get<double>("threshold"), -1, order);
    const Run run = checked_run(given);
    given.refuse_overlap();
    const Fault fault = without_gil([&] { return decide(in, found.first, found.second, run); });
    refuse_fault(fault, in, found.first.similarities);
    return given.outputs();
}

py::tuple task_scores_binding(const py::kwargs& arguments) {
    Given given(arguments, false);
    const Ballots in = checked_ballots(given, 0.0);
    const auto offsets_view = given.input<int64_t, 1>("offsets");
    const int64_t tasks = offsets_view.shape[0] - 1;
    if (tasks < 0) refuse_value("offsets must hold at least 1 value, got 0");
    for (int64_t i = 0; i <= tasks; ++i) {
        const int64_t least = i ? offsets_view.data[i - 1] : 0;
        const bool wrong_end = i == 0 && offsets_view.data[0] != 0;
        if (wrong_end || offsets_view.data[i] < least) {
            refuse_value("offsets must ascend from 0 to the " + std::to_string(in.queries) +
                         " queries, got " + std::to_string(offsets_view.data[i]) + at(i) +
                         (i ? " after " + std::to_string(least) : ""));
        }
    }
    if (offsets_view.data[tasks] != in.queries) {
        refuse_value("offsets must ascend from 0 to the " + std::to_string(in.queries) +
                     " queries, got " + std::to_string(offsets_view.data[tasks]) + " at the end");
    }
    const double threshold = given.get<double>("threshold");
    check_threshold(threshold);
    const Run run = checked_run(given);
    const py::array_t<double> s1({tasks, in.models}), s2({tasks, in.models});
    const py::array_t<int64_t> support({tasks, in.models});
    const TaskScores out{const_cast<double*>(s1.data()), const_cast<double*>(s2.data()),
                         const_cast<int64_t*>(support.data())};
    const Fault fault =
        without_gil([&] { return task_scores(in, offsets_view.data, tasks, threshold, out, run); });
    refuse_fault(fault, in, nullptr);
    return py::make_tuple(s1, s2, support);
}

void stream_copy_binding(const py::object& source, const py::object& target, int64_t threads) {
    const auto from = read<uint8_t, 1>(source, "source");
    const auto to = write<uint8_t, 1>(target, "target");
    expect_shape(to, from.shape, "as source");
    refuse_overlap({extent(to)}, {extent(from)});
    const Run run = checked_run(threads, "auto");
    const py::gil_scoped_release released;
    stream_copy(from.data, to.data, from.bytes(), run);
}

}  // namespace

void bind_votes(py::module_& module) {
    module.attr("task_block") = kTaskBlock;
    module.def("votes", &votes_binding);
    module.def("decide", &decide_binding);
    module.def("task_scores", &task_scores_binding);
    module.def("stream_copy", &stream_copy_binding, py::arg("source"), py::arg("target"),
               py::arg("threads"), "What memory allows: benchmarks/votes.py compares with it.");
}

}  // namespace benchrouter
