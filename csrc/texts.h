// SPDX-License-Identifier: Apache-2.0
//
// Python's bytes as the core reads them, for the bindings.
#pragma once

#include <pybind11/pybind11.h>

#include <string_view>
#include <vector>

namespace sprout {

// The texts as they are; the tuple keeps them alive. The caller's own list would not: another
// thread may change it while the GIL is released.
inline std::vector<std::string_view> views(const pybind11::tuple& texts) {
  std::vector<std::string_view> found;
  found.reserve(texts.size());
  for (const pybind11::handle text : texts) {
    if (!PyBytes_Check(text.ptr())) throw pybind11::type_error("texts: must be bytes");
    found.emplace_back(PyBytes_AS_STRING(text.ptr()),
                       static_cast<std::size_t>(PyBytes_GET_SIZE(text.ptr())));
  }
  return found;
}

}  // namespace sprout
