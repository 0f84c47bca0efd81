// benchrouter._core.encode_records and search: check arguments, release the GIL, call the kernels.
#include <string>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "neighbours/search.hpp"
#include "neighbours/search_levels.hpp"

namespace benchrouter {
namespace {

void check_dim(int64_t dim) {
    if (dim < 1 || dim > kMostCoded) {
        refuse_value("records must have between 1 and " + std::to_string(kMostCoded) +
                     " dimensions, got " + std::to_string(dim));
    }
}

template <class Values, class Floats>
void check_shapes(const Values& values, const Floats& scales, const Floats& errors,
                  int64_t n_records, int64_t dim) {
    const int64_t groups = code_groups(n_records);
    const std::string because =
        "for " + std::to_string(n_records) + " records of " + std::to_string(dim) + " dimensions";
    expect_shape(values, {groups, code_steps(dim), kGroupRecords, kStepValues}, because);
    expect_shape(scales, {groups, kGroupRecords}, because);
    expect_shape(errors, {groups, kGroupRecords}, because);
}

py::tuple encode_binding(const py::object& records, const py::object& values,
                         const py::object& scales, const py::object& errors, int64_t threads,
                         const std::string& simd) {
    const auto from = read<float, 2>(records, "records");
    const auto to = write<uint8_t, 4>(values, "values");
    const auto scales_view = write<float, 2>(scales, "scales");
    const auto errors_view = write<float, 2>(errors, "errors");
    const int64_t n_records = from.shape[0], dim = from.shape[1];
    check_dim(dim);
    check_shapes(to, scales_view, errors_view, n_records, dim);
    refuse_overlap({extent(to), extent(scales_view), extent(errors_view)}, {extent(from)});
    const Run run = checked_run(threads, simd);
    CodeBounds most{};
    {
        const py::gil_scoped_release released;
        most = encode_records(from.data, n_records, dim, to.data, scales_view.data,
                              errors_view.data, run);
    }
    return py::make_tuple(most.norm, most.error);
}

py::tuple search_binding(const py::object& queries, const py::object& records,
                         const py::object& values, const py::object& scales,
                         const py::object& errors, double largest_norm, double largest_error,
                         int64_t k, int64_t threads, const std::string& simd) {
    const auto asked = read<float, 2>(queries, "queries");
    const auto exact = read<float, 2>(records, "records");
    const auto coded = read<uint8_t, 4>(values, "values");
    const auto scales_view = read<float, 2>(scales, "scales");
    const auto errors_view = read<float, 2>(errors, "errors");
    const int64_t n_queries = asked.shape[0], n_records = exact.shape[0], dim = exact.shape[1];
    check_dim(dim);
    expect_length("queries", "dimensions", asked.shape[1], "records have", dim);
    check_shapes(coded, scales_view, errors_view, n_records, dim);
    if (k < 1) refuse_value("k must be 1 or more, got " + std::to_string(k));
    const Run run = checked_run(threads, simd);
    const py::array_t<int64_t> ids({n_queries, k});
    const py::array_t<float> similarities({n_queries, k});
    const Codes codes{coded.data, scales_view.data, errors_view.data, n_records,
                      dim,        largest_norm,     largest_error};
    const SearchTask task{asked.data,
                          n_queries,
                          exact.data,
                          n_records,
                          dim,
                          k,
                          const_cast<int64_t*>(ids.data()),
                          const_cast<float*>(similarities.data())};
    const Fault fault = without_gil([&] { return search(codes, task, run); });
    refuse_similarity(fault);
    return py::make_tuple(ids, similarities);
}

py::tuple rank_binding(const py::object& queries, const py::object& records,
                       const py::object& candidates, int64_t k, int64_t threads,
                       const std::string& simd) {
    const auto queries_view = read<float, 2>(queries, "queries");
    const auto records_view = read<float, 2>(records, "records");
    const auto candidates_view = read<int64_t, 2>(candidates, "candidates");
    expect_length("queries", "dimensions", queries_view.shape[1], "records have",
                  records_view.shape[1]);
    expect_length("candidates", "rows", candidates_view.shape[0], "queries has",
                  queries_view.shape[0]);
    if (k < 0) refuse_value("k must be 0 or more, got " + std::to_string(k));
    const Run run = checked_run(threads, simd);
    const int64_t n_queries = queries_view.shape[0];
    const py::array_t<int64_t> ids({n_queries, k});
    const py::array_t<float> similarities({n_queries, k});
    const SearchTask task{queries_view.data,
                          n_queries,
                          records_view.data,
                          records_view.shape[0],
                          records_view.shape[1],
                          k,
                          const_cast<int64_t*>(ids.data()),
                          const_cast<float*>(similarities.data())};
    const int64_t columns = candidates_view.shape[1];
    const Fault fault = without_gil([&] { return rank(candidates_view.data, columns, task, run); });
    if (fault.kind == FaultKind::id) {
        refuse_id("candidates", "record number", records_view.shape[0],
                  candidates_view.data[fault.row * columns + fault.column],
                  at(fault.row, fault.column));
    }
    refuse_similarity(fault);
    return py::make_tuple(ids, similarities);
}

}  // namespace

void bind_search(py::module_& module) {
    module.attr("has_vnni") = has_vnni();
    module.attr("most_coded_dimensions") = kMostCoded;
    module.attr("code_layout") = py::make_tuple(kGroupRecords, kStepValues);
    module.def("encode_records", &encode_binding, py::arg("records"), py::arg("values"),
               py::arg("scales"), py::arg("errors"), py::arg("threads"), py::arg("simd") = "auto",
               "Records to codes of 8 bits; returns their largest norm and error.");
    module.def("rank", &rank_binding, py::arg("queries"), py::arg("records"), py::arg("candidates"),
               py::arg("k"), py::arg("threads"), py::arg("simd") = "auto");
    module.def("search", &search_binding, py::arg("queries"), py::arg("records"), py::arg("values"),
               py::arg("scales"), py::arg("errors"), py::arg("largest_norm"),
               py::arg("largest_error"), py::arg("k"), py::arg("threads"), py::arg("simd") = "auto",
               "The nearest records, exactly; see benchrouter.neighbours.codes.");
}

}  // namespace benchrouter
