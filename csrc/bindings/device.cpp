// benchrouter._core.votes_on_device, decide_on_device and expect_on_device: check DLPack capsules,
// launch the kernels. Values in device memory are checked by the kernels and by
// benchrouter.votes.on_device.
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/inputs.hpp"
#include "votes/vote_cuda.hpp"

namespace benchrouter {
namespace {

Launch checked_launch(Given& given) {
    const auto fault = given.input<int64_t, 1>("fault");
    expect_shape(fault, {1}, "(one place)");
    void* const stream = reinterpret_cast<void*>(given.get<intptr_t>("stream"));
    return {given.device(), stream, const_cast<int64_t*>(fault.data)};
}

void votes_there(const py::kwargs& arguments) {
    Given given(arguments, true);
    const Ballots in = checked_ballots(given, given.get<double>("prior_weight"));
    const Launch launch = checked_launch(given);
    const auto out = vote_outputs(given, in);
    const py::gil_scoped_release released;
    votes_on_device(in, out.first, out.second, launch);
}

void decide_there(const py::kwargs& arguments) {
    Given given(arguments, true);
    const Ballots in = checked_ballots(given, given.get<double>("prior_weight"));
    const Launch launch = checked_launch(given);
    std::vector<int64_t> order;
    const auto found = checked_decision(given, in, given.get<std::string>("rule"),
                                        given.get<double>("threshold"), -1, order);
    given.refuse_overlap();
    const py::gil_scoped_release released;
    decide_on_device(in, found.first, found.second, launch);
}

void expect_there(const py::kwargs& arguments) {
    Given given(arguments, true);
    const py::dict learnt = given["learnt"];
    const LearntArrays arrays{
        given.input<int32_t, 1>(learnt["dataset"], "dataset"),
        given.input<float, 1>(learnt["own_distance"], "own_distance"),
        given.input<double, 1>(learnt["standing"], "standing"),
        given.input<double, 1>(learnt["share"], "share"),
        given.input<float, 2>(learnt["of_dataset"], "of_dataset"),
        given.input<float, 2>(learnt["linear"], "linear"),
        given.input<double, 1>(learnt["offset"], "offset"),
    };
    const LearntNumbers numbers{
        learnt["apart"].cast<Pair>(),
        learnt["level"].cast<Pair>(),
        learnt["gate"].cast<std::array<double, 4>>(),
        learnt["margin"].cast<Pair>(),
        learnt["tolerance"].cast<Pair>(),
    };
    const ExpectTask task = expect_task(given, arrays, checked_expectation(arrays, numbers));
    const Launch launch = checked_launch(given);
    const py::gil_scoped_release released;
    expect_on_device(task.ballots, task.decision, task.expectation, task.expected, launch);
}

}  // namespace

void bind_device(py::module_& module) {
    module.def("votes_on_device", &votes_there);
    module.def("decide_on_device", &decide_there);
    module.def("expect_on_device", &expect_there);
}

}  // namespace benchrouter
