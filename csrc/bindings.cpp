// SPDX-License-Identifier: Apache-2.0
//
// The only file that knows Python: a table of what sprout_ext/*.py build on. Signatures with their
// types stand in sprout_ext/_core.pyi, meanings in the headers.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "clock.h"
#include "ledger.h"
#include "philox.h"
#include "receipt.h"
#include "sampler.h"

namespace py = pybind11;
using namespace py::literals;
using namespace sprout;

void board_table(py::module_& m);   // board_bindings.cpp
void ring_table(py::module_& m);    // ring_bindings.cpp
void scorer_table(py::module_& m);  // scorer_bindings.cpp
void prices_table(py::module_& m);  // price_table_bindings.cpp

namespace {

using Shares = py::array_t<double, py::array::c_style | py::array::forcecast>;

Thresholds thresholds_of(const Shares& shares) {
  if (shares.ndim() != 1) throw std::invalid_argument("shares: one-dimensional, (levels,)");
  return thresholds({shares.data(), static_cast<std::size_t>(shares.size())});
}

// Sampler is a type in CPython's own terms: one draw takes 10 ns, a call through pybind11 several
// times that.
struct Sampler {
  PyObject_HEAD Thresholds thresholds;
  std::uint64_t key;
};

// False with a Python error set, if it is no number of 64 bits.
bool word_of(PyObject* object, std::uint64_t& word) {
  const py::object index = py::reinterpret_steal<py::object>(PyNumber_Index(object));
  if (!index) return false;
  word = PyLong_AsUnsignedLongLong(index.ptr());
  return word != std::uint64_t(-1) || PyErr_Occurred() == nullptr;
}

PyObject* sampler_new(PyTypeObject* type, PyObject* args, PyObject* keywords) {
  static const char* names[] = {"shares", "key", nullptr};
  PyObject *shares = nullptr, *key = nullptr;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "OO:Sampler", const_cast<char**>(names), &shares,
                                   &key))
    return nullptr;
  try {
    std::uint64_t word = 0;
    if (!word_of(key, word)) return nullptr;
    const auto array = Shares::ensure(shares);
    if (!array) throw std::invalid_argument("shares: a sequence of numbers");
    const Thresholds found = thresholds_of(array);
    PyObject* const self = type->tp_alloc(type, 0);
    if (self != nullptr) {
      new (&reinterpret_cast<Sampler*>(self)->thresholds) Thresholds(found);
      reinterpret_cast<Sampler*>(self)->key = word;
    }
    return self;
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  }
  return nullptr;
}

void sampler_free(PyObject* self) {
  PyTypeObject* const type = Py_TYPE(self);
  type->tp_free(self);
  Py_DECREF(type);
}

PyObject* sampler_draw(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  std::uint64_t sequence = 0, stream = 0;
  if (count < 1 || count > 2) {
    PyErr_SetString(PyExc_TypeError, "draw(sequence, stream=0)");
    return nullptr;
  }
  if (!word_of(args[0], sequence) || (count == 2 && !word_of(args[1], stream))) return nullptr;
  if (stream > 0xFFFFFFFF) {
    PyErr_SetString(PyExc_OverflowError, "stream: 32 bits");
    return nullptr;
  }
  const auto& sampler = *reinterpret_cast<Sampler*>(self);
  return PyLong_FromLong(
      static_cast<long>(sampler.thresholds.level(philox_draw(sampler.key, sequence, low(stream)))));
}

py::object sampler_type() {
  static PyMethodDef methods[] = {
      {"draw", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(sampler_draw)),
       METH_FASTCALL, "draw(sequence, stream=0): the level of one draw"},
      {}};
  static PyType_Slot slots[] = {{Py_tp_new, reinterpret_cast<void*>(sampler_new)},
                                {Py_tp_dealloc, reinterpret_cast<void*>(sampler_free)},
                                {Py_tp_methods, methods},
                                {Py_tp_doc, const_cast<char*>("Draws levels, one at a time.")},
                                {}};
  static PyType_Spec spec = {"sprout_ext._core.Sampler", sizeof(Sampler), 0, Py_TPFLAGS_DEFAULT,
                             slots};
  return py::reinterpret_steal<py::object>(PyType_FromSpec(&spec));
}

py::array_t<std::uint8_t> draw(const Shares& shares, std::uint64_t key, std::uint64_t first,
                               std::size_t count, std::uint32_t stream, bool cuda) {
  const Thresholds upper = thresholds_of(shares);
  py::array_t<std::uint8_t> levels(static_cast<py::ssize_t>(count));
  const std::span<std::uint8_t> out(levels.mutable_data(), count);
  const py::gil_scoped_release unlocked;
  (cuda ? draw_batch_cuda : draw_batch)(upper, key, first, stream, out);
  return levels;
}

void sampler_table(py::module_& m) {
  m.def("fold_key", &fold_key, "policy_seed"_a, "node_id"_a, "boot_epoch"_a, "stub_index"_a);
  m.def(
      "thresholds",
      [](const Shares& shares) {
        const Thresholds found = thresholds_of(shares);
        return py::array_t<std::uint64_t>(found.levels, found.upper.data());
      },
      "shares"_a);
  m.def(
      "philox",
      [](std::array<std::uint32_t, 4> c, std::uint64_t key) {
        const auto [w] = philox(c[0], c[1], c[2], c[3], low(key), high(key));
        return py::make_tuple(w[0], w[1], w[2], w[3]);
      },
      "counter"_a, "key"_a);
  m.def("draw_batch", &draw, "shares"_a, "key"_a, "first_sequence"_a, "count"_a, "stream"_a,
        "cuda"_a);
  m.def("cuda_built", &cuda_built);
  m.def("cuda_available", &cuda_available);
  m.attr("Sampler") = sampler_type();
}

py::bytes bytes_of(const char (&name)[kNameBytes]) {
  return py::bytes(name, ::strnlen(name, sizeof name));
}

void ledger_table(py::module_& m) {
  PYBIND11_NUMPY_DTYPE(FlightRow, ticket, slot, generation, level, flags, phase, closed,
                       policy_version, policy_seed, sequence, task, tenant, opened_ns, input_tokens,
                       max_tokens, output_tokens, scheduled_ns, first_token_ns, last_token_ns,
                       heartbeat_ns, closed_ns, receipt_joules, intensity_g_per_kwh, pue,
                       embodied_g_per_s);
  py::class_<FlightRow>(m, "Flight")
      .def_readonly("ticket", &FlightRow::ticket)
      .def_readonly("slot", &FlightRow::slot)
      .def_readonly("generation", &FlightRow::generation)
      .def_readonly("level", &FlightRow::level)
      .def_readonly("flags", &FlightRow::flags)
      .def_readonly("phase", &FlightRow::phase)
      .def_readonly("closed", &FlightRow::closed)
      .def_readonly("policy_version", &FlightRow::policy_version)
      .def_readonly("policy_seed", &FlightRow::policy_seed)
      .def_readonly("sequence", &FlightRow::sequence)
      .def_property_readonly("task", [](const FlightRow& row) { return bytes_of(row.task); })
      .def_property_readonly("tenant", [](const FlightRow& row) { return bytes_of(row.tenant); })
      .def_readonly("opened_ns", &FlightRow::opened_ns)
      .def_readonly("input_tokens", &FlightRow::input_tokens)
      .def_readonly("max_tokens", &FlightRow::max_tokens)
      .def_readonly("output_tokens", &FlightRow::output_tokens)
      .def_readonly("scheduled_ns", &FlightRow::scheduled_ns)
      .def_readonly("first_token_ns", &FlightRow::first_token_ns)
      .def_readonly("last_token_ns", &FlightRow::last_token_ns)
      .def_readonly("heartbeat_ns", &FlightRow::heartbeat_ns)
      .def_readonly("closed_ns", &FlightRow::closed_ns)
      .def_readonly("receipt_joules", &FlightRow::receipt_joules)
      .def_readonly("intensity_g_per_kwh", &FlightRow::intensity_g_per_kwh)
      .def_readonly("pue", &FlightRow::pue)
      .def_readonly("embodied_g_per_s", &FlightRow::embodied_g_per_s);

  py::class_<Segment>(m, "Segment")
      .def(py::init<const std::string&, std::uint32_t, std::uint32_t, std::uint64_t,
                    std::uint32_t>(),
           "directory"_a, "role"_a, "stub_index"_a, "node_id"_a, "records"_a)
      .def_property_readonly("uid", [](const Segment& self) { return self.identity().uid; })
      .def_property_readonly("tag", [](const Segment& self) { return self.identity().tag; })
      .def_property_readonly("_path", &Segment::path)
      .def(
          "open_flight",
          [](Segment& self, std::uint8_t level, std::uint16_t flags, std::uint64_t policy_version,
             std::uint64_t policy_seed, std::uint64_t sequence, const py::bytes& task,
             std::uint32_t input_tokens, std::uint32_t max_tokens, std::int64_t opened_ns,
             double intensity_g_per_kwh, double pue, double embodied_g_per_s,
             const py::bytes& tenant) {
            return self.open_flight({level, flags, policy_version, policy_seed, sequence,
                                     std::string_view(task), std::string_view(tenant), input_tokens,
                                     max_tokens, opened_ns, intensity_g_per_kwh, pue,
                                     embodied_g_per_s});
          },
          py::kw_only(), "level"_a, "flags"_a, "policy_version"_a, "policy_seed"_a, "sequence"_a,
          "task"_a, "input_tokens"_a, "max_tokens"_a, "opened_ns"_a, "intensity_g_per_kwh"_a,
          "pue"_a, "embodied_g_per_s"_a, "tenant"_a = py::bytes())
      .def("count", &Segment::count, "counter"_a, "n"_a = 1)
      .def("close", &Segment::close, "unlink"_a = false);

  py::class_<Flights>(m, "Flights")
      .def(py::init<std::string>(), "directory"_a)
      .def(
          "arrived",
          [](Flights& self, std::uint64_t ticket, std::int64_t now_ns) {
            SegmentView* const view = self.find(ticket);
            return view != nullptr && flight_arrived(*view, ticket, now_ns);
          },
          "ticket"_a, "now_ns"_a)
      .def(
          "scheduled",
          [](Flights& self, std::uint64_t ticket, std::int64_t now_ns) {
            SegmentView* const view = self.find(ticket);
            return view != nullptr && flight_scheduled(*view, ticket, now_ns);
          },
          "ticket"_a, "now_ns"_a)
      .def(
          "first_token",
          [](Flights& self, std::uint64_t ticket, std::int64_t now_ns) {
            SegmentView* const view = self.find(ticket);
            return view != nullptr && flight_first_token(*view, ticket, now_ns);
          },
          "ticket"_a, "now_ns"_a)
      .def(
          "progress",
          [](Flights& self, std::uint64_t ticket, std::uint32_t output_tokens,
             std::int64_t now_ns) {
            SegmentView* const view = self.find(ticket);
            return view != nullptr && flight_progress(*view, ticket, output_tokens, now_ns);
          },
          "ticket"_a, "output_tokens"_a, "now_ns"_a)
      .def(
          "finished",
          [](Flights& self, std::uint64_t ticket, std::uint32_t phase, std::uint32_t input_tokens,
             std::uint32_t output_tokens, std::int64_t first_scheduled_ns,
             std::int64_t first_token_ns, std::int64_t last_token_ns) {
            if (phase < std::uint32_t(Phase::kFinished) || phase > std::uint32_t(Phase::kCancelled))
              throw std::invalid_argument("phase: FINISHED, FAILED or CANCELLED");
            SegmentView* const view = self.find(ticket);
            return view != nullptr &&
                   flight_finished(*view, ticket,
                                   {Phase{phase}, input_tokens, output_tokens, first_scheduled_ns,
                                    first_token_ns, last_token_ns});
          },
          "ticket"_a, "phase"_a, py::kw_only(), "input_tokens"_a, "output_tokens"_a,
          "first_scheduled_ns"_a, "first_token_ns"_a, "last_token_ns"_a)
      .def(
          "view",
          [](Flights& self, std::uint64_t ticket) -> std::optional<FlightRow> {
            FlightRow row;
            SegmentView* const view = self.find(ticket);
            if (view == nullptr || !flight_read(*view, high(ticket) & 0xFFFF, row) ||
                row.ticket != ticket)
              return std::nullopt;
            return row;
          },
          "ticket"_a)
      .def(
          "close",
          [](Flights& self, std::uint64_t ticket, std::int64_t now_ns, double receipt_joules) {
            SegmentView* const view = self.find(ticket);
            return view != nullptr && flight_close(*view, ticket, now_ns, receipt_joules);
          },
          "ticket"_a, "now_ns"_a, "receipt_joules"_a)
      .def(
          "land",
          [](Flights& self, std::uint64_t ticket, std::int64_t now_ns,
             ClockReader* clock) -> py::object {
            Receipt receipt;
            if (!flight_land(self, clock, ticket, now_ns, receipt)) return py::none();
            return py::make_tuple(receipt.level, receipt.policy_version, receipt.joules,
                                  receipt.carbon_g, receipt.intensity_g_per_kwh);
          },
          "ticket"_a, "now_ns"_a, "clock"_a)
      .def_property_readonly("mapped", &Flights::mapped);

  const auto identity = [](auto member) {
    return [member](const SegmentReader& self) { return self.identity().*member; };
  };
  py::class_<SegmentReader>(m, "SegmentReader")
      .def(py::init<std::string>(), "path"_a)
      .def_property_readonly("uid", identity(&SegmentIdentity::uid))
      .def_property_readonly("tag", identity(&SegmentIdentity::tag))
      .def_property_readonly("role", identity(&SegmentIdentity::role))
      .def_property_readonly("pid", identity(&SegmentIdentity::pid))
      .def_property_readonly("node_id", identity(&SegmentIdentity::node_id))
      .def_property_readonly("stub_index", identity(&SegmentIdentity::stub_index))
      .def_property_readonly("records", identity(&SegmentIdentity::records))
      .def_property_readonly("_path", &SegmentReader::path)
      .def_property_readonly("alive", &SegmentReader::alive)
      .def("scan",
           [](const SegmentReader& self) {
             std::vector<FlightRow> rows;
             {
               const py::gil_scoped_release unlocked;
               rows = self.scan();
             }
             return py::array_t<FlightRow>(static_cast<py::ssize_t>(rows.size()), rows.data());
           })
      .def("release", &SegmentReader::release, "slot"_a, "generation"_a)
      .def("counters",
           [](const SegmentReader& self) {
             const auto counted = self.counters();
             return py::array_t<std::uint64_t>(counted.size(), counted.data());
           })
      .def("unlink", &SegmentReader::unlink);
}

void clock_table(py::module_& m) {
  const auto energy = [](Joules found) { return py::make_tuple(found.joules, found.provisional); };
  const auto now = [](auto member) {
    return [member](ClockWriter& self) { return self.now().*member; };
  };
  py::class_<ClockWriter>(m, "ClockWriter")
      .def(py::init<std::string>(), "path"_a)
      .def(
          "tick",
          [](ClockWriter& self, std::int64_t t_ns, double active_seconds, double joules,
             double meter_joules, bool estimated, bool whole) {
            clock_tick(self.file(), t_ns, active_seconds, joules, meter_joules, estimated, whole);
          },
          "t_ns"_a, "active_seconds"_a, "joules"_a, "meter_joules"_a, "estimated"_a,
          "whole"_a = true)
      .def(
          "prior_rate", [](ClockWriter& self, double rate) { clock_prior(self.file(), rate); },
          "joules_per_active_second"_a)
      .def_property_readonly("last_t_ns", now(&ClockNow::t_ns))
      .def_property_readonly("last_meter_joules", now(&ClockNow::meter_joules))
      .def_property_readonly("metered_joules", now(&ClockNow::metered_joules))
      .def_property_readonly("settled_joules", now(&ClockNow::settled_joules))
      .def_property_readonly("idle_joules", now(&ClockNow::idle_joules))
      .def_property_readonly("unattributed_joules", now(&ClockNow::unattributed_joules))
      .def_property_readonly("last_whole", now(&ClockNow::whole))
      .def_property_readonly("unmetered_ns",
                             [](ClockWriter& self) {
                               const ClockNow found = self.now();
                               return py::make_tuple(found.unmetered_from_ns,
                                                     found.unmetered_until_ns);
                             })
      .def_property_readonly("rate", now(&ClockNow::rate_j_per_active_s))
      .def(
          "energy",
          [energy](ClockWriter& self, std::int64_t start_ns, std::int64_t end_ns) {
            return energy(clock_energy(self.file(), start_ns, end_ns));
          },
          "start_ns"_a, "end_ns"_a)
      .def("close", &ClockWriter::close);
  py::class_<ClockReader>(m, "ClockReader")
      .def(py::init<std::string>(), "path"_a)
      .def(
          "energy",
          [energy](ClockReader& self, std::int64_t start_ns, std::int64_t end_ns) {
            return energy(self.energy(start_ns, end_ns));
          },
          "start_ns"_a, "end_ns"_a)
      .def("_state", [](ClockReader& self) -> py::object {
        ClockNow found;
        if (!self.now(found)) return py::none();
        return py::make_tuple(found.t_ns, found.rate_j_per_active_s, found.metered_joules,
                              found.settled_joules, found.idle_joules, found.estimated,
                              found.unattributed_joules, found.unmetered_until_ns, found.whole);
      });
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() =
      "Compiled core of sprout_ext. Private: use sprout_ext.sampler, board, ledger, clock, ring, "
      "scorer.";
  py::register_local_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const FileError& error) {
      // OSError picks its subclass by errno: FileNotFoundError, PermissionError, …
      const py::tuple args = py::make_tuple(error.code, error.what(), error.path);
      PyErr_SetObject(PyExc_OSError, args.ptr());
    } catch (const CorruptFile& error) {
      PyErr_SetString(PyExc_ValueError, error.what());
    }
  });
  sampler_table(m);
  board_table(m);
  ledger_table(m);
  clock_table(m);
  ring_table(m);
  scorer_table(m);
  prices_table(m);
}
