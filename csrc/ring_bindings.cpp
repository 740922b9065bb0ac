// SPDX-License-Identifier: Apache-2.0
//
// The ring of sampled prompts as Python has it: a table, like bindings.cpp, which calls it.
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "ring.h"

namespace py = pybind11;
using namespace py::literals;
using namespace sprout;

void ring_table(py::module_& m) {
  const auto fact = [](auto member) {
    return [member](const RingPrompt& self) { return self.facts.*member; };
  };
  const auto bytes = [](auto member) {
    return [member](const RingPrompt& self) { return py::bytes(self.*member); };
  };
  py::class_<RingPrompt>(m, "RingPrompt")
      .def_readonly("number", &RingPrompt::number)
      .def_property_readonly("level", fact(&PromptFacts::level))
      .def_property_readonly("flags", fact(&PromptFacts::flags))
      .def_property_readonly("policy_version", fact(&PromptFacts::policy_version))
      .def_property_readonly("propensity", fact(&PromptFacts::propensity))
      .def_property_readonly("max_tokens", fact(&PromptFacts::max_tokens))
      .def_property_readonly("opened_ns", fact(&PromptFacts::opened_ns))
      .def_property_readonly("task", bytes(&RingPrompt::task))
      .def_property_readonly("tenant", bytes(&RingPrompt::tenant))
      .def_property_readonly("text", bytes(&RingPrompt::text));

  py::class_<Ring>(m, "Ring")
      .def(py::init<const std::string&, std::uint32_t, std::uint64_t, std::uint32_t,
                    std::uint32_t>(),
           "directory"_a, "stub_index"_a, "node_id"_a, "slots"_a, "prompt_bytes"_a)
      .def_property_readonly("uid", [](const Ring& self) { return self.identity().uid; })
      .def_property_readonly("_path", &Ring::path)
      .def(
          "write",
          [](Ring& self, const py::bytes& text, std::uint8_t level, std::uint16_t flags,
             std::uint64_t policy_version, double propensity, std::uint32_t max_tokens,
             std::int64_t opened_ns, const py::bytes& task, const py::bytes& tenant) {
            return self.write({level, flags, policy_version, propensity, max_tokens, opened_ns},
                              std::string_view(task), std::string_view(tenant),
                              std::string_view(text));
          },
          "text"_a, py::kw_only(), "level"_a, "flags"_a, "policy_version"_a, "propensity"_a,
          "max_tokens"_a, "opened_ns"_a, "task"_a, "tenant"_a)
      .def("refused", &Ring::refused)
      .def("unknown", &Ring::unknown)
      .def("close", &Ring::close, "unlink"_a = false);

  const auto identity = [](auto member) {
    return [member](const RingReader& self) { return self.identity().*member; };
  };
  py::class_<RingReader>(m, "RingReader")
      .def(py::init<std::string>(), "path"_a)
      .def_property_readonly("uid", identity(&RingIdentity::uid))
      .def_property_readonly("pid", identity(&RingIdentity::pid))
      .def_property_readonly("node_id", identity(&RingIdentity::node_id))
      .def_property_readonly("stub_index", identity(&RingIdentity::stub_index))
      .def_property_readonly("slots", identity(&RingIdentity::slots))
      .def_property_readonly("prompt_bytes", identity(&RingIdentity::prompt_bytes))
      .def_property_readonly("_path", &RingReader::path)
      .def_property_readonly("alive", &RingReader::alive)
      .def("drain",
           [](RingReader& self) {
             std::vector<RingPrompt> prompts;
             {
               const py::gil_scoped_release unlocked;
               prompts = self.drain();
             }
             py::list found;
             for (RingPrompt& prompt : prompts) found.append(std::move(prompt));
             return found;
           })
      .def("_counts",
           [](const RingReader& self) {
             const RingCounts c = self.counts();
             return py::make_tuple(c.written, c.too_long, c.refused, c.unknown, c.read, c.missed);
           })
      .def("unlink", &RingReader::unlink);
}
