// _pyhost.Line: pickled objects both ways between one thread of one host and one thread of another, through two queues
// that close when either host ends.  Managers' calls travel on lines (multiprocessing/_manager_protocol.py).
//
//   client:  line = _pyhost.Line()          server:  line = _pyhost.Line.attach(address)
//            tell the server line.address            while True: line.send(answer(line.recv()))
//            line.exchange(call)
//
// A line belongs to the process that made its object: in a forked copy it can only be dropped.  One thread uses it at a
// time; `busy` tells code that interrupts an exchange (a signal handler) that it must go another way.

#include <cerrno>
#include <string>

#include "absl/strings/str_cat.h"
#include "modules/native/gil_wait.h"
#include "modules/native/message_pickle.h"
#include "modules/native/session_access.h"
#include "modules/native/shared_object.h"
#include "modules/native/status.h"
#include "runtime/queue/queue.h"
#include "runtime/segment/handle_refs.h"

namespace pyhost::native {
namespace {

struct LineObject {
  PyObject_HEAD
  HostId owner;  // the process whose line it is; none while it is none yet
  Handle calls;
  Handle replies;
  bool is_server;
  bool busy;    // a call was sent, its reply has not come
  bool closed;  // by us
};

LineObject* AsLine(PyObject* self) { return reinterpret_cast<LineObject*>(self); }

// The queue to send on, and that to receive from.
Handle Outgoing(const LineObject* line) { return line->is_server ? line->replies : line->calls; }
Handle Incoming(const LineObject* line) { return line->is_server ? line->calls : line->replies; }

std::optional<Queue> OpenQueue(Handle handle) {
  Session* session = RequireSession();
  if (session == nullptr) return std::nullopt;
  absl::StatusOr<Queue> queue = Queue::Open(session->segment(), session->me(), handle);
  if (queue.ok()) return *std::move(queue);
  SetError(queue.status());
  return std::nullopt;
}

// ---- Making and closing -----------------------------------------------------------------------------------------------

void Close(LineObject* line) {
  Session* session = Session::Current();
  if (line->closed || session == nullptr || session->me() != line->owner) return;
  line->closed = true;
  for (Handle handle : {line->calls, line->replies}) {
    if (absl::StatusOr<Queue> queue = Queue::Open(session->segment(), session->me(), handle); queue.ok()) queue->Close();
  }
}

void Dealloc(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  LineObject* line = AsLine(self);
  Close(line);
  if (Session* session = Session::Current(); session != nullptr) {
    for (Handle handle : {line->calls, line->replies}) {
      if (handle) session->segment().refs().Release(handle, session->me());
    }
  }
  type->tp_free(self);
  Py_DECREF(type);
}

// Makes one of the two queues; false with a Python error.
bool MakeQueue(Session* session, Handle* handle) {
  absl::StatusOr<Queue> queue = Queue::Create(session->segment(), session->me());
  if (!queue.ok()) {
    SetError(queue.status());
    return false;
  }
  session->segment().refs().Adopt(queue->handle(), session->me());
  *handle = queue->handle();
  return queue->EndWith(session->me()).ok();
}

PyObject* New(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static const char* const kKeywords[] = {nullptr};
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, ":Line", const_cast<char**>(kKeywords))) return nullptr;
  Session* session = RequireSession();
  PyRef self = PyRef::Steal(session == nullptr ? nullptr : type->tp_alloc(type, 0));
  if (!self) return nullptr;
  LineObject* line = AsLine(self.get());
  line->owner = session->me();
  if (!MakeQueue(session, &line->calls) || !MakeQueue(session, &line->replies)) return nullptr;
  return self.release();
}

// Holds one of the two queues of a client that waits for us to do so; false with a Python error.
bool HoldQueue(Session* session, uint64_t value, Handle* handle) {
  const Handle queue = Handle::FromValue(value);
  absl::Status status = queue.kind() == ObjectKind::kQueue
                            ? session->segment().refs().Retain(queue, session->me())
                            : absl::InvalidArgumentError(absl::StrCat("a line cannot use ", queue.ToString()));
  if (status.ok()) {
    *handle = queue;
    status = Queue::Open(session->segment(), session->me(), queue)->EndWith(session->me());
  }
  if (!status.ok()) SetError(status);
  return status.ok();
}

PyObject* Attach(PyObject* cls, PyObject* address) {
  unsigned long long session_id = 0, calls = 0, replies = 0;
  if (!PyTuple_Check(address)) return PyErr_Format(PyExc_TypeError, "a line's address is a tuple, not %R", address);
  if (!PyArg_ParseTuple(address, "KKK:attach", &session_id, &calls, &replies)) return nullptr;
  Session* session = RequireSession();
  if (session == nullptr) return nullptr;
  if (session->segment().session_id() != session_id) {
    return PyErr_Format(PyExc_ValueError, "the line belongs to another pyhost session (%llx)", session_id);
  }
  auto* type = reinterpret_cast<PyTypeObject*>(cls);
  PyRef self = PyRef::Steal(type->tp_alloc(type, 0));
  if (!self) return nullptr;
  LineObject* line = AsLine(self.get());
  line->is_server = true;
  if (!HoldQueue(session, calls, &line->calls) || !HoldQueue(session, replies, &line->replies)) return nullptr;
  line->owner = session->me();
  return self.release();
}

PyObject* CloseMethod(PyObject* self, PyObject*) {
  Close(AsLine(self));
  Py_RETURN_NONE;
}

// ---- Sending and receiving --------------------------------------------------------------------------------------------

// Why nothing more will come: "host 3 'SyncManager-1' (pid 811): killed by SIGKILL".
std::string WhyClosed(const LineObject* line, const Queue& queue) {
  Session* session = Session::Current();
  const HostId partner = queue.Partner(line->owner);
  absl::StatusOr<HostInfo> info = session->segment().hosts().Info(partner);
  if (!info.ok()) return absl::StrCat("the other end, ", partner.ToString(), ", has ended");
  const std::string who = info->Describe();
  if (partner != line->owner && info->exit.ended()) {
    return absl::StrCat("the other end, ", who, ", has ended: ", info->exit.ToString());
  }
  return absl::StrCat("the other end, ", who, ", closed the line");
}

PyObject* SetBrokenPipe(const std::string& why) {
  PyRef arguments = PyRef::Steal(Py_BuildValue("(is)", EPIPE, why.c_str()));
  if (arguments) PyErr_SetObject(PyExc_OSError, arguments.get());  // which makes it a BrokenPipeError
  return nullptr;
}

bool CheckUsable(const LineObject* line) {
  Session* session = RequireSession();
  if (session == nullptr) return false;
  if (line->owner != session->me()) {
    PyErr_SetString(PyExc_OSError, "the line belongs to the process that this one was forked from");
    return false;
  }
  if (line->closed) PyErr_SetString(PyExc_OSError, "the line is closed");
  return !line->closed;
}

bool SendPickled(const LineObject* line, const PickledMessage& pickled) {
  std::optional<Queue> queue = OpenQueue(Outgoing(line));
  if (!queue) return false;
  GilWait gil;
  const absl::Status status = queue->Push(pickled.message(), gil.Until(Deadline::Never()));
  if (status.ok()) return true;
  if (absl::IsFailedPrecondition(status)) {
    SetBrokenPipe(WhyClosed(line, *queue));
  } else {
    SetError(status);
  }
  return false;
}

PyObject* Send(PyObject* self, PyObject* object) {
  LineObject* line = AsLine(self);
  PickledMessage pickled;
  if (!CheckUsable(line) || !pickled.Take(StateOfType(Py_TYPE(self)), object)) return nullptr;
  if (!SendPickled(line, pickled)) return nullptr;
  Py_RETURN_NONE;
}

// The next message; a status with the Python error set.
absl::StatusOr<Message> Next(const LineObject* line) {
  std::optional<Queue> queue = OpenQueue(Incoming(line));
  if (!queue) return absl::CancelledError();
  GilWait gil;
  absl::StatusOr<Message> message = queue->Pop(gil.Until(Deadline::Never()));
  if (message.ok()) return message;
  if (absl::IsOutOfRange(message.status())) {
    PyErr_SetString(PyExc_EOFError, WhyClosed(line, *queue).c_str());
  } else {
    SetError(message.status());
  }
  return absl::CancelledError();
}

PyObject* ObjectOf(PyObject* self, absl::StatusOr<Message> message) {
  return message.ok() ? UnpickleMessage(StateOfType(Py_TYPE(self)), *std::move(message)) : nullptr;
}

PyObject* Receive(PyObject* self, PyObject*) {
  if (!CheckUsable(AsLine(self))) return nullptr;
  return ObjectOf(self, Next(AsLine(self)));
}

PyObject* Exchange(PyObject* self, PyObject* object) {
  LineObject* line = AsLine(self);
  PickledMessage pickled;
  // Pickling runs other code: it may use the line, or close it.
  if (!pickled.Take(StateOfType(Py_TYPE(self)), object) || !CheckUsable(line)) return nullptr;
  if (line->busy) {
    PyErr_SetString(PyExc_BlockingIOError, "the line is in the middle of another exchange");
    return nullptr;
  }
  line->busy = true;
  absl::StatusOr<Message> reply = absl::CancelledError();
  if (SendPickled(line, pickled)) reply = Next(line);
  line->busy = false;
  // Interrupted, or the other end is gone: a later call must not take the reply to this one for its own.
  if (!reply.ok()) Close(line);
  return ObjectOf(self, std::move(reply));
}

// ---- The type -----------------------------------------------------------------------------------------------------------

PyObject* GetAddress(PyObject* self, void*) {
  Session* session = RequireSession();
  if (session == nullptr) return nullptr;
  return Py_BuildValue("(KKK)", static_cast<unsigned long long>(session->segment().session_id()),
                       static_cast<unsigned long long>(AsLine(self)->calls.value()),
                       static_cast<unsigned long long>(AsLine(self)->replies.value()));
}
PyObject* GetBusy(PyObject* self, void*) { return PyBool_FromLong(AsLine(self)->busy); }
PyObject* GetInherited(PyObject* self, void*) {
  Session* session = RequireSession();
  return session == nullptr ? nullptr : PyBool_FromLong(AsLine(self)->owner != session->me());
}
PyObject* GetClosed(PyObject* self, void*) { return PyBool_FromLong(AsLine(self)->closed); }

PyObject* Repr(PyObject* self) {
  return PyUnicode_FromFormat("<_pyhost.Line %s, %s>", Outgoing(AsLine(self)).ToString().c_str(),
                              Incoming(AsLine(self)).ToString().c_str());
}

PyMethodDef kMethods[] = {
    {"attach", Attach, METH_O | METH_CLASS, "attach(address) -> the server's end of a client's line"},
    {"send", Send, METH_O, "send(obj); BrokenPipeError when the other end is gone"},
    {"recv", Receive, METH_NOARGS, "recv() -> object; EOFError when the other end is gone and nothing is left"},
    {"exchange", Exchange, METH_O,
     "exchange(call) -> reply\n\nsend() and recv() in one.  Whatever interrupts it closes the line."},
    {"close", CloseMethod, METH_NOARGS, "close(): the other end gets EOFError."},
    {nullptr, nullptr, 0, nullptr},
};
PyGetSetDef kProperties[] = {
    {"address", GetAddress, nullptr, "What Line.attach() wants; valid while this object lives.", nullptr},
    {"busy", GetBusy, nullptr, "Whether an exchange waits for its reply.", nullptr},
    {"inherited", GetInherited, nullptr, "Whether it belongs to the process that this one was forked from.", nullptr},
    {"closed", GetClosed, nullptr, "Whether this end was closed.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};
PyType_Slot kSlots[] = {
    {Py_tp_doc, const_cast<char*>("Line(): objects both ways between one thread here and one of another process.")},
    {Py_tp_new, reinterpret_cast<void*>(New)},
    {Py_tp_dealloc, reinterpret_cast<void*>(Dealloc)},
    {Py_tp_repr, reinterpret_cast<void*>(Repr)},
    {Py_tp_methods, kMethods},
    {Py_tp_getset, kProperties},
    {0, nullptr},
};
PyType_Spec kSpec = {"_pyhost.Line", sizeof(LineObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, kSlots};

PyObject* SessionId(PyObject*, PyObject*) {
  Session* session = Session::Current();
  if (session == nullptr || !session->me()) Py_RETURN_NONE;
  return PyLong_FromUnsignedLongLong(session->segment().session_id());
}

PyMethodDef kFunctions[] = {
    {"session_id", SessionId, METH_NOARGS, "session_id() -> random number of this process's session, None without one"},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int BindLine(PyObject* module, ModuleState*) {
  if (PyModule_AddFunctions(module, kFunctions) < 0) return -1;
  PyRef type = PyRef::Steal(PyType_FromModuleAndSpec(module, &kSpec, nullptr));
  return type ? PyModule_AddObjectRef(module, "Line", type.get()) : -1;
}

}  // namespace pyhost::native
