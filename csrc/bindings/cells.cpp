// benchrouter._core.cells: checks arguments, releases the GIL, calls the kernel, reports what it
// refused.
#include <cmath>
#include <string>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/given.hpp"
#include "scores/cells.hpp"

namespace benchrouter {
namespace {

void check_between(const char* name, int64_t found, int64_t least, int64_t most) {
    if (found >= least && found <= most) return;
    refuse_value(std::string(name) + " must be in [" + std::to_string(least) + ", " +
                 std::to_string(most) + "], got " + std::to_string(found));
}

template <class T>
void check_all_between(const View<T, 1>& view, int64_t least, int64_t most) {
    for (int64_t i = 0; i < view.shape[0]; ++i) {
        if (view.data[i] >= least && view.data[i] <= most) continue;
        refuse_value(std::string(view.name) + " must be in [" + std::to_string(least) + ", " +
                     std::to_string(most) + "], got " + std::to_string(view.data[i]) + at(i));
    }
}

void check_offsets(const View<const int64_t, 1>& offsets, int64_t places, int64_t length) {
    expect_length("offsets", "values", offsets.shape[0], "records plus 1 is", places + 1);
    bool ascending = offsets.data[0] == 0 && offsets.data[places] == length;
    for (int64_t i = 0; i < places; ++i) ascending &= offsets.data[i] <= offsets.data[i + 1];
    if (!ascending) {
        refuse_value("offsets must ascend from 0 to the " + std::to_string(length) +
                     " values of cells");
    }
}

void cells_binding(const py::kwargs& arguments) {
    Given given(arguments, false);
    const int64_t first = given.get<int64_t>("first"), n_cells = given.get<int64_t>("n_cells");
    const int64_t n_datasets = given.get<int64_t>("n_datasets"), k = given.get<int64_t>("k");
    const int64_t kappa = given.get<int64_t>("kappa"), threads = given.get<int64_t>("threads");
    const double threshold = given.get<double>("threshold");
    const bool each = given.get<bool>("each");
    const auto ids_view = given.input<int64_t, 2>("ids");
    const auto similarities_view = given.input<float, 2>("similarities");
    expect_shape(similarities_view, ids_view.shape, "as ids");
    const auto places_view = given.input<int64_t, 2>("own_places");
    const auto own_view = given.input<float, 2>("own_similarities");
    expect_shape(own_view, places_view.shape, "as own_places");
    expect_length("own_places", "rows", places_view.shape[0], "ids has", ids_view.shape[0]);
    const auto correctness_view = given.input<float, 2>("correctness");
    const int64_t n_records = correctness_view.shape[0], models = correctness_view.shape[1];
    const auto dataset_view = given.input<int32_t, 1>("dataset");
    expect_length("dataset", "values", dataset_view.shape[0], "correctness has rows:", n_records);
    check_between("n_datasets", n_datasets, 0, INT32_MAX);
    check_all_between(dataset_view, 0, n_datasets - 1);
    const auto records_view = given.input<int64_t, 1>("records");
    check_all_between(records_view, 0, n_records - 1);
    const int64_t places = records_view.shape[0];
    const auto cells_view = given.input<int32_t, 1>("cells");
    check_between("n_cells", n_cells, 0, INT32_MAX);
    check_all_between(cells_view, 0, n_cells - 1);
    const auto offsets_view = given.input<int64_t, 1>("offsets");
    check_offsets(offsets_view, places, cells_view.shape[0]);
    if (ids_view.shape[0] > places) {
        refuse_value("ids has " + std::to_string(ids_view.shape[0]) +
                     " rows, expected at most as many as records has: " + std::to_string(places));
    }
    check_between("first", first, 0, places - ids_view.shape[0]);
    check_between("k", k, 1, 65535);
    check_between("kappa", kappa, 1, INT32_MAX);
    if (!std::isfinite(threshold)) refuse_value("threshold must be finite");
    check_between("threads", threads, 0, INT32_MAX);

    const HeldOutLists lists{
        ids_view.data,    similarities_view.data, ids_view.shape[0],    ids_view.shape[1],
        places_view.data, own_view.data,          places_view.shape[1], first};
    const Moves moves{records_view.data, places, offsets_view.data, cells_view.data, n_cells};
    const CellSettings settings{k,
                                kappa,
                                static_cast<float>(threshold),
                                correctness_view.data,
                                dataset_view.data,
                                n_records,
                                models,
                                n_datasets,
                                each};
    const py::tuple out = given["out"];
    if (out.size() != 7) refuse_value("out must hold 7 arrays, got " + std::to_string(out.size()));
    const int64_t exclusions = exclusions_of(settings);
    const auto sums_of = [&](int i, const char* name, auto type) {
        return given
            .output<decltype(type), 3>(out[i], name, {n_cells, exclusions, models},
                                       "(cells, exclusions, models)")
            .data;
    };
    int64_t* const distance = given
                                  .output<int64_t, 2>(out[0], "out.distance", {n_cells, exclusions},
                                                      "(cells, exclusions)")
                                  .data;
    const CellSums sums{distance,
                        sums_of(1, "out.s1", double{}),
                        sums_of(2, "out.s2", int32_t{}),
                        sums_of(3, "out.right", int32_t{}),
                        sums_of(4, "out.unsupported", int32_t{}),
                        sums_of(5, "out.of_known", int32_t{}),
                        sums_of(6, "out.of_correct", int32_t{})};
    given.refuse_overlap();
    const Fault fault =
        without_gil([&] { return cells(lists, moves, settings, sums, static_cast<int>(threads)); });
    const std::string where = at(fault.row, fault.column);
    if (fault.kind == FaultKind::id) {
        refuse_id("ids", "record number", n_records,
                  lists.ids[fault.row * lists.columns + fault.column], where);
    }
    if (fault.kind == FaultKind::place) {
        refuse_id("own_places", "place", places,
                  lists.own_places[fault.row * lists.own_columns + fault.column], where);
    }
    if (fault.kind == FaultKind::similarity) {
        const bool own = fault.column >= lists.columns;
        const float found = own ? lists.own_similarities[fault.row * lists.own_columns +
                                                         fault.column - lists.columns]
                                : lists.similarities[fault.row * lists.columns + fault.column];
        refuse_value(std::string(own ? "own_similarities" : "similarities") +
                     " must be in [-2, 2] where there is a neighbour, got " +
                     std::to_string(found) + " at [" + std::to_string(fault.row) + ", " +
                     std::to_string(fault.column - (own ? lists.columns : 0)) + "]");
    }
}

}  // namespace

void bind_cells(py::module_& module) {
    module.attr("distance_unit") = kDistanceUnit;
    module.def("cells", &cells_binding, "Sums of held-out cells; see benchrouter.scores.cells.");
}

}  // namespace benchrouter
