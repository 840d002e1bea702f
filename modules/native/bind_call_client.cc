// _pyhost.CallClient: the caller's end of a pool.  What it submits is a Calls object (bind_calls.cc).

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "modules/native/call_objects.h"
#include "modules/native/call_outcome.h"
#include "modules/native/call_submit.h"
#include "modules/native/gil_wait.h"
#include "modules/native/session_access.h"
#include "modules/native/status.h"

namespace pyhost::native {
namespace {

// Does `act(client)`, unless the client may not be used: then null with a Python error.
template <typename Act>
PyObject* WithClient(PyObject* self, Act act) {
  CallClient* client = UseClient(self);
  return client == nullptr ? nullptr : act(*client);
}

// ---- Life -----------------------------------------------------------------------------------------------------------

PyObject* New(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static const char* const kKeywords[] = {"cancellable", nullptr};
  unsigned int cancellable = 0;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|I:CallClient", const_cast<char**>(kKeywords), &cancellable)) {
    return nullptr;
  }
  Session* session = EnsureSession();
  if (session == nullptr) return nullptr;
  absl::StatusOr<std::unique_ptr<CallClient>> client =
      CallClient::Create(session->segment(), session->me(), cancellable);
  if (!client.ok()) return SetError(client.status());
  PyObject* module = PyType_GetModuleByDef(type, &kModuleDef);
  PyObject* self = module == nullptr ? nullptr : type->tp_alloc(type, 0);
  if (self == nullptr) return nullptr;
  reinterpret_cast<ClientObject*>(self)->state = new ClientState{StateOfModule(module), *std::move(client), {}, {}};
  AsClient(self)->faults = PyRef::Steal(PyDict_New());
  if (!AsClient(self)->faults) Py_CLEAR(self);
  return self;
}

void Dealloc(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  ClientState* state = AsClient(self);
  if (state != nullptr) {
    Session* session = Session::Current();
    const HostId me = session == nullptr ? HostId() : session->me();
    if (state->client->me() != me) CallClient::ReleaseInherited(std::move(state->client), me);
    delete state;
  }
  type->tp_free(self);
  Py_DECREF(type);
}

// ---- Submitting -----------------------------------------------------------------------------------------------------

// (args, kwds) as the worker wants it.
PyRef PackArguments(PyObject* args, PyObject* kwds) {
  PyRef tuple = args == nullptr                ? PyRef::Steal(PyTuple_New(0))
                : PyTuple_CheckExact(args)     ? PyRef::Borrow(args)
                                               : PyRef::Steal(PySequence_Tuple(args));
  if (!tuple) return {};
  const bool none = kwds == nullptr || kwds == Py_None || (PyDict_CheckExact(kwds) && PyDict_GET_SIZE(kwds) == 0);
  return PyRef::Steal(PyTuple_Pack(2, tuple.get(), none ? Py_None : kwds));
}

// The arguments of call() and submit(): function, args, kwds, limit, attempts.
struct Application {
  PyObject* callable = nullptr;
  PyObject* args = nullptr;
  PyObject* kwds = nullptr;
  CallOptions options;
};

bool ParseOptions(PyObject* limit, PyObject* attempts, CallOptions* options) {
  const unsigned long limit_millis = limit == nullptr ? 0 : PyLong_AsUnsignedLong(limit);
  const unsigned long times = attempts == nullptr ? 1 : PyLong_AsUnsignedLong(attempts);
  if (PyErr_Occurred()) return false;
  options->limit_millis = static_cast<uint32_t>(std::min<unsigned long>(limit_millis, UINT32_MAX));
  options->attempts = static_cast<uint32_t>(std::min<unsigned long>(times, UINT32_MAX));
  return true;
}

bool ParseApplication(const char* name, PyObject* const* args, Py_ssize_t count, Py_ssize_t most,
                      Application* application) {
  if (count < 1 || count > most) {
    PyErr_Format(PyExc_TypeError, "%s() takes 1 to %zd arguments, not %zd", name, most, count);
    return false;
  }
  application->callable = args[0];
  if (count > 1) application->args = args[1];
  if (count > 2) application->kwds = args[2];
  return ParseOptions(count > 3 ? args[3] : nullptr, count > 4 ? args[4] : nullptr, &application->options);
}

PyObject* SubmitApply(PyObject* self, const Application& application, bool notify) {
  return WithClient(self, [&](CallClient& client) -> PyObject* {
    PyObject* const callable = application.callable;
    PyRef arguments = PackArguments(application.args, application.kwds);
    if (!arguments) return nullptr;
    PyRef calls = PyRef::Steal(NewCalls(self, callable, {.notify = notify}, application.options));
    if (!calls) return nullptr;
    CallsState* state = AsCalls(calls.get());
    if (SubmitOne(state, &client, callable, CallKind::kCall, arguments.get())) return calls.release();
    client.CloseGroup(state->group);  // Nobody is to wait for it.
    return nullptr;
  });
}

PyObject* Submit(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  Application application;
  if (!ParseApplication("submit", args, count, 6, &application)) return nullptr;
  const int notify = count > 5 ? PyObject_IsTrue(args[5]) : 0;
  return notify < 0 ? nullptr : SubmitApply(self, application, notify != 0);
}

PyObject* Call(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  Application application;
  if (!ParseApplication("call", args, count, 5, &application)) return nullptr;
  PyRef calls = PyRef::Steal(SubmitApply(self, application, false));
  if (!calls) return nullptr;
  return WithClient(self, [&](CallClient& client) {
    return AwaitOutcome(client, *AsCalls(calls.get()), Deadline::Never());
  });
}

// A list with room for the results of `length` items; never with an empty place, for any thread may see it.
PyRef NewResults(Py_ssize_t length) {
  PyRef results = PyRef::Steal(PyList_New(length));
  for (Py_ssize_t i = 0; results && i < length; ++i) PyList_SET_ITEM(results.get(), i, Py_NewRef(Py_None));
  return results;
}

// submit_map(function, star, items, chunksize, workers, limit, attempts, notify): chunksize 0 = guided.
PyObject* SubmitMap(PyObject* self, PyObject* args) {
  Task task;
  PyObject *items = nullptr, *limit = nullptr, *attempts = nullptr;
  int star = 0, notify = 0;
  Py_ssize_t chunk_size = 0, workers = 1;
  CallOptions options;
  if (!PyArg_ParseTuple(args, "OpOnnOOp:submit_map", &task.callable, &star, &items, &chunk_size, &workers, &limit,
                        &attempts, &notify) ||
      !ParseOptions(limit, attempts, &options)) {
    return nullptr;
  }
  task.star = star != 0;
  task.single = chunk_size == 1;
  return WithClient(self, [&](CallClient& client) -> PyObject* {
    const Py_ssize_t length = PySequence_Size(items);
    if (length < 0) return nullptr;
    PyRef calls = PyRef::Steal(NewCalls(self, task.callable, {.notify = notify != 0, .open = true}, options));
    if (!calls) return nullptr;
    CallsState* state = AsCalls(calls.get());
    state->bounds = SplitLength(length, chunk_size, workers);
    state->single = task.single;
    state->results = NewResults(length);
    const bool submitted = state->results && SubmitChunks(state, &client, task, items, state->bounds);
    client.CloseGroup(state->group);
    return submitted ? calls.release() : nullptr;
  });
}

PyObject* OpenCalls(PyObject* self, PyObject* args) {
  PyObject *callable = nullptr, *limit = nullptr, *attempts = nullptr;
  CallOptions options;
  if (!PyArg_ParseTuple(args, "OOO:open_calls", &callable, &limit, &attempts) ||
      !ParseOptions(limit, attempts, &options)) {
    return nullptr;
  }
  return WithClient(self, [&](CallClient&) -> PyObject* {
    PyRef calls = PyRef::Steal(NewCalls(self, callable, {.open = true}, options));
    if (calls) AsCalls(calls.get())->keeps_ids = false;
    return calls.release();
  });
}

PyObject* WaitForRoom(PyObject* self, PyObject* args) {
  unsigned long long calls = 0;
  if (!PyArg_ParseTuple(args, "K:wait_for_room", &calls)) return nullptr;
  return WithClient(self, [&](CallClient& client) -> PyObject* {
    GilWait gil;
    const absl::Status status = client.WaitForRoom(calls, gil.Until(Deadline::Never()));
    if (!status.ok()) return SetError(status);
    Py_RETURN_NONE;
  });
}

PyObject* WaitOutstanding(PyObject* self, PyObject*) {
  return WithClient(self, [&](CallClient& client) -> PyObject* {
    GilWait gil;
    const absl::Status status = client.WaitForOutstanding(gil.Until(Deadline::Never()));
    if (!status.ok()) return SetError(status);
    Py_RETURN_NONE;
  });
}

// ---- Running calls --------------------------------------------------------------------------------------------------

// overdue() -> ([(host, call, limit)], seconds until the next or None)
PyObject* FindOverdue(PyObject* self, PyObject*) {
  return WithClient(self, [](CallClient& client) -> PyObject* {
    const Overdue overdue = client.FindOverdue();
    PyRef calls = PyRef::Steal(PyList_New(0));
    for (const Overdue::Call& call : overdue.calls) {
      PyRef one = PyRef::Steal(Py_BuildValue("(IKd)", call.worker.value(),
                                             static_cast<unsigned long long>(call.call.value()),
                                             absl::ToDoubleSeconds(call.limit)));
      if (!calls || !one || PyList_Append(calls.get(), one.get()) < 0) return nullptr;
    }
    if (overdue.next == absl::InfiniteDuration()) return Py_BuildValue("(NO)", calls.release(), Py_None);
    return Py_BuildValue("(Nd)", calls.release(), absl::ToDoubleSeconds(overdue.next));
  });
}

PyObject* Condemn(PyObject* self, PyObject* args) {
  unsigned int host = 0;
  unsigned long long call = 0;
  if (!PyArg_ParseTuple(args, "IK:condemn", &host, &call)) return nullptr;
  return WithClient(self, [&](CallClient& client) {
    return PyBool_FromLong(client.Condemn(HostId::FromValue(host), CallId::FromValue(call)));
  });
}

PyObject* Conclude(PyObject* self, PyObject* args) {
  unsigned long long call = 0;
  const char* verdict = nullptr;
  Py_ssize_t size = 0;
  if (!PyArg_ParseTuple(args, "Ky#:conclude", &call, &verdict, &size)) return nullptr;
  return WithClient(self, [&](CallClient& client) {
    return PyBool_FromLong(client.Conclude(CallId::FromValue(call), absl::CancelledError("the call was cancelled"),
                                           std::string(verdict, static_cast<size_t>(size))));
  });
}

// ---- Callbacks ------------------------------------------------------------------------------------------------------

PyObject* WaitFinished(PyObject* self, PyObject*) {
  return WithClient(self, [](CallClient& client) -> PyObject* {
    GilWait gil;
    absl::StatusOr<std::vector<std::shared_ptr<CallGroup>>> finished =
        client.WaitForFinished(gil.Until(Deadline::Never()));
    if (!finished.ok()) {
      if (PyErr_Occurred()) return nullptr;
      return absl::IsCancelled(finished.status()) ? Py_NewRef(Py_None) : SetError(finished.status());
    }
    PyRef keys = PyRef::Steal(PyList_New(0));
    for (const std::shared_ptr<CallGroup>& group : *finished) {
      PyRef key = PyRef::Steal(PyLong_FromVoidPtr(group.get()));
      if (!keys || !key || PyList_Append(keys.get(), key.get()) < 0) return nullptr;
    }
    return keys.release();
  });
}

// ---- The end --------------------------------------------------------------------------------------------------------

template <void (CallClient::*kDo)()>
PyObject* DoWithClient(PyObject* self, PyObject*) {
  return WithClient(self, [](CallClient& client) -> PyObject* {
    (client.*kDo)();
    Py_RETURN_NONE;
  });
}

template <void (CallClient::*kEnd)(const absl::Status&)>
PyObject* EndClient(PyObject* self, PyObject* reason) {
  const char* text = PyUnicode_AsUTF8(reason);
  if (text == nullptr) return nullptr;
  return WithClient(self, [&](CallClient& client) -> PyObject* {
    (client.*kEnd)(absl::FailedPreconditionError(text));
    Py_RETURN_NONE;
  });
}

PyObject* GetFaults(PyObject* self, void*) { return Py_NewRef(AsClient(self)->faults.get()); }

// ---- Figures --------------------------------------------------------------------------------------------------------

double Seconds(uint64_t nanos) { return static_cast<double>(nanos) * 1e-9; }

PyRef DictOf(const WorkerFigures& figures) {
  using Number = unsigned long long;
  return PyRef::Steal(Py_BuildValue(
      "{s:I,s:K,s:d,s:d,s:d,s:K,s:K,s:K,s:d}", "host", figures.worker.value(), "calls", Number{figures.calls}, "busy",
      Seconds(figures.busy_nanos), "pickling", Seconds(figures.pickling_nanos), "waiting", Seconds(figures.waiting_nanos), "bytes_in", Number{figures.bytes_in},
      "bytes_out", Number{figures.bytes_out}, "call", Number{figures.in_hand.value()}, "running",
      Seconds(figures.running_nanos)));
}

PyObject* Stats(PyObject* self, PyObject*) {
  return WithClient(self, [](CallClient& client) -> PyObject* {
    PyRef list = PyRef::Steal(PyList_New(0));
    for (const WorkerFigures& figures : client.Figures()) {
      PyRef one = DictOf(figures);
      if (!list || !one || PyList_Append(list.get(), one.get()) < 0) return nullptr;
    }
    return list.release();
  });
}

// The first call lost with its worker: (call, pid, host, exit code, end in words) or None.
PyObject* FirstLost(PyObject* self, PyObject*) {
  return WithClient(self, [](CallClient& client) -> PyObject* {
    GilWait gil;
    // What was pushed is there: this is no wait for anything to come.
    const absl::Status drained = client.Drain(gil.Until(Deadline::After(absl::Seconds(5))));
    if (!drained.ok()) return SetError(drained);
    const std::optional<LostCall> lost = client.FirstLost();
    if (!lost) Py_RETURN_NONE;
    const ExitStatus exit = ExitStatus::Decode(lost->worker.exit);
    return Py_BuildValue("(Kisis)", static_cast<unsigned long long>(lost->call.value()),
                         static_cast<int>(lost->worker.pid), HostId::FromValue(lost->worker.host).ToString().c_str(),
                         static_cast<int>(exit.ExitCode()), exit.ToString().c_str());
  });
}

// What a worker said about its end, without a call: bytes or None.
PyObject* TakeReport(PyObject* self, PyObject*) {
  return WithClient(self, [](CallClient& client) -> PyObject* {
    const std::string report = client.TakeReport();
    if (report.empty()) Py_RETURN_NONE;
    return PyBytes_FromStringAndSize(report.data(), static_cast<Py_ssize_t>(report.size()));
  });
}

template <uint64_t (CallClient::*kGet)() const>
PyObject* NumberOf(PyObject* self, void*) {
  return WithClient(self, [](CallClient& client) { return PyLong_FromUnsignedLongLong((client.*kGet)()); });
}

PyObject* Unanswered(PyObject* self, void*) {
  return WithClient(self, [](CallClient& client) { return PyLong_FromUnsignedLongLong(client.CountUnanswered()); });
}

PyObject* Server(PyObject* self, void*) {
  return WithClient(self, [&](CallClient& client) { return NewCallServer(AsClient(self)->module, client.handle()); });
}

// ---- The type -------------------------------------------------------------------------------------------------------

PyMethodDef kMethods[] = {
    {"call", AsMethod(Call), METH_FASTCALL,
     "call(function, args=(), kwds=None, limit=0, attempts=1) -> (ok, value)\n\nlimit: milliseconds that the function may run "
     "(each item, of several), 0 for ever; attempts: how often a call may run that is lost with its worker."},
    {"submit", AsMethod(Submit), METH_FASTCALL,
     "submit(function, args=(), kwds=None, limit=0, attempts=1, notify=False) -> Calls"},
    {"submit_map", SubmitMap, METH_VARARGS,
     "submit_map(function, star, items, chunksize, workers, limit, attempts, notify) -> Calls\n\nchunksize 0: guided by `workers`."},
    {"open_calls", OpenCalls, METH_VARARGS, "open_calls(function, limit, attempts) -> Calls to extend"},
    {"wait_outstanding", WaitOutstanding, METH_NOARGS, "wait_outstanding(): waits until every call has an outcome"},
    {"overdue", FindOverdue, METH_NOARGS,
     "overdue() -> ([(host, call, limit in seconds)] of calls that run longer than they may, seconds until the next)"},
    {"condemn", Condemn, METH_VARARGS,
     "condemn(host, call) -> does the worker run this call, and will not answer it?  End the worker, then conclude()."},
    {"conclude", Conclude, METH_VARARGS,
     "conclude(call, verdict) -> is the verdict (pool_outcomes.pack_verdict) the outcome of the condemned call?"},
    {"wait_finished", WaitFinished, METH_NOARGS,
     "wait_finished() -> keys of submissions with `notify` that finished; None when there is nothing to wait for"},
    {"wait_for_room", WaitForRoom, METH_VARARGS,
     "wait_for_room(calls): waits until fewer calls than that wait for a worker"},
    {"stop_waiting", DoWithClient<&CallClient::StopWaiting>, METH_NOARGS, "stop_waiting(): wait_finished() ends when nothing is left"},
    {"close", DoWithClient<&CallClient::Close>, METH_NOARGS, "close(): no new calls; workers end when the queue is drained"},
    {"terminate", EndClient<&CallClient::Terminate>, METH_O, "terminate(reason): outstanding calls end with this reason"},
    {"fail", EndClient<&CallClient::Fail>, METH_O, "fail(reason): there are no workers; calls end with this reason"},
    {"take_report", TakeReport, METH_NOARGS,
     "take_report() -> what a worker that could not begin said last (CallServer.report), or None"},
    {"cancel_queued", DoWithClient<&CallClient::CancelQueued>, METH_NOARGS, "cancel_queued(): calls that no worker has taken end here"},
    {"first_lost", FirstLost, METH_NOARGS,
     "first_lost() -> (call, pid, host, exit code, end) of the first call lost with its worker, or None"},
    {"stats", Stats, METH_NOARGS, "stats() -> one dict a worker"},
    {nullptr, nullptr, 0, nullptr},
};
PyGetSetDef kProperties[] = {
    {"server", Server, nullptr, "a CallServer for a new worker", nullptr},
    {"outstanding", NumberOf<&CallClient::outstanding>, nullptr, "calls that have not arrived", nullptr},
    {"unanswered", Unanswered, nullptr, "calls that have no reply yet: what the workers have to do", nullptr},
    {"withdrawn", NumberOf<&CallClient::withdrawn>, nullptr, "calls that were never submitted: they could not be pickled", nullptr},
    {"faults", GetFaults, nullptr, "dict for pool_faults: host in words -> fault of its worker", nullptr},
    {"queued", NumberOf<&CallClient::queued>, nullptr, "calls that no worker has taken", nullptr},
    {"answered", NumberOf<&CallClient::answered>, nullptr, "replies of any kind since the pool began", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};
PyType_Slot kSlots[] = {
    {Py_tp_doc, const_cast<char*>("CallClient(cancellable=0): a new pool, without workers; the caller's end of it.")},
    {Py_tp_new, reinterpret_cast<void*>(New)},
    {Py_tp_dealloc, reinterpret_cast<void*>(Dealloc)},
    {Py_tp_methods, kMethods},
    {Py_tp_getset, kProperties},
    {0, nullptr},
};
PyType_Spec kSpec = {"_pyhost.CallClient", sizeof(ClientObject), 0,
                           Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, kSlots};

}  // namespace

CallClient* UseClient(PyObject* client) {
  Session* session = RequireSession();
  if (session == nullptr) return nullptr;
  CallClient* used = AsClient(client)->client.get();
  if (used->me() == session->me()) return used;
  PyErr_SetString(PyExc_RuntimeError,
                  "this pool belongs to the process that made it; a forked copy cannot use it: make a pool here");
  return nullptr;
}

int BindCallClient(PyObject* module, ModuleState* state) {
  state->call_client_type = PyRef::Steal(PyType_FromModuleAndSpec(module, &kSpec, nullptr));
  if (!state->call_client_type) return -1;
  return PyModule_AddObjectRef(module, "CallClient", state->call_client_type.get());
}

}  // namespace pyhost::native
