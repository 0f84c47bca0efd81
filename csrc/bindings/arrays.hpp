// Checked views of NumPy arrays: nothing is converted, copied or touched before it is checked.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "bindings/faults.hpp"

namespace benchrouter {

// What a view keeps of an array: its first element, its shape, its name in messages.
template <class T, std::size_t kDims>
struct View {
    T* data = nullptr;
    std::array<int64_t, kDims> shape{};
    const char* name = "";
    int64_t bytes() const {
        int64_t count = sizeof(T);
        for (const int64_t length : shape) count *= length;
        return count;
    }
};

inline std::string shape_text(const py::array& array) {
    std::string text = "(";
    for (py::ssize_t d = 0; d < array.ndim(); ++d) {
        text += (d ? ", " : "") + std::to_string(array.shape(d));
    }
    return text + (array.ndim() == 1 ? ",)" : ")");
}

// The array behind `object`, refused unless it has T's dtype, kDims dimensions, C order and
// alignment.
template <class T, std::size_t kDims>
py::array checked_array(const py::handle& object, const char* name) {
    const py::dtype expected = py::dtype::of<T>();
    const auto text = [](const py::object& dtype) { return std::string(py::str(dtype)); };
    if (!py::isinstance<py::array>(object)) {
        throw py::type_error(std::string(name) + " must be a NumPy array of " + text(expected) +
                             ", got " + text(py::type::of(object).attr("__name__")));
    }
    const py::array array = py::reinterpret_borrow<py::array>(object);
    const py::dtype found = array.dtype();
    if (!py::detail::npy_api::get().PyArray_EquivTypes_(found.ptr(), expected.ptr())) {
        throw py::type_error(std::string(name) + " must be " + text(expected) + ", got " +
                             text(found));
    }
    if (array.ndim() != static_cast<py::ssize_t>(kDims)) {
        refuse_value(std::string(name) + " must have " + std::to_string(kDims) +
                     (kDims == 1 ? " dimension" : " dimensions") + ", got shape " +
                     shape_text(array));
    }
    if (!(array.flags() & py::array::c_style)) {
        refuse_value(std::string(name) + " must be C-contiguous, got strides (" +
                     [&] {
                         std::string strides;
                         for (std::size_t d = 0; d < kDims; ++d)
                             strides += (d ? ", " : "") +
                                        std::to_string(array.strides(static_cast<py::ssize_t>(d)));
                         return strides;
                     }() +
                     ") for shape " + shape_text(array));
    }
    if (!(array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_)) {
        refuse_value(std::string(name) +
                     " must be aligned to its item size, got an unaligned array");
    }
    return array;
}

template <class T, std::size_t kDims>
View<const T, kDims> read(const py::handle& object, const char* name) {
    const py::array array = checked_array<T, kDims>(object, name);
    View<const T, kDims> view;
    view.data = static_cast<const T*>(array.data());
    for (std::size_t d = 0; d < kDims; ++d)
        view.shape[d] = array.shape(static_cast<py::ssize_t>(d));
    view.name = name;
    return view;
}

// As read(), with an empty view for None.
template <class T, std::size_t kDims>
View<const T, kDims> read_optional(const py::handle& object, const char* name) {
    return object.is_none() ? View<const T, kDims>{} : read<T, kDims>(object, name);
}

// A view of an array that will be written.
template <class T, std::size_t kDims>
View<T, kDims> write(const py::handle& object, const char* name) {
    py::array array = checked_array<T, kDims>(object, name);
    if (!array.writeable())
        refuse_value(std::string(name) + " must be writeable, got a read-only array");
    View<T, kDims> view;
    view.data = static_cast<T*>(array.mutable_data());
    for (std::size_t d = 0; d < kDims; ++d)
        view.shape[d] = array.shape(static_cast<py::ssize_t>(d));
    view.name = name;
    return view;
}

// Refuses a length that does not agree with another one.
inline void expect_length(const char* name, const char* what, int64_t found,
                          const std::string& expected_by, int64_t expected) {
    if (found != expected) {
        refuse_value(std::string(name) + " has " + std::to_string(found) + " " + what + ", " +
                     expected_by + " " + std::to_string(expected));
    }
}

template <class T, std::size_t kDims>
void expect_shape(const View<T, kDims>& view, const std::array<int64_t, kDims>& expected,
                  const std::string& because) {
    if (view.shape == expected) return;
    const auto text = [](const std::array<int64_t, kDims>& shape) {
        std::string out = "(";
        for (std::size_t d = 0; d < kDims; ++d) out += (d ? ", " : "") + std::to_string(shape[d]);
        return out + (kDims == 1 ? ",)" : ")");
    };
    refuse_value(std::string(view.name) + " has shape " + text(view.shape) + ", expected " +
                 text(expected) + " " + because);
}

// Memory of one argument, to find outputs that lie over inputs or over each other.
struct Extent {
    const char* name;
    const char* begin;
    int64_t bytes;
};

template <class T, std::size_t kDims>
Extent extent(const View<T, kDims>& view) {
    return {view.name, reinterpret_cast<const char*>(view.data), view.data ? view.bytes() : 0};
}

inline void refuse_overlap(const std::vector<Extent>& outputs, const std::vector<Extent>& inputs) {
    const auto check = [](const Extent& out, const Extent& other) {
        if (out.bytes > 0 && other.bytes > 0 && out.begin < other.begin + other.bytes &&
            other.begin < out.begin + out.bytes) {
            refuse_value(std::string(out.name) + " shares memory with " + other.name);
        }
    };
    for (size_t o = 0; o < outputs.size(); ++o) {
        for (size_t p = 0; p < o; ++p) check(outputs[o], outputs[p]);
        for (const Extent& input : inputs) check(outputs[o], input);
    }
}

}  // namespace benchrouter
