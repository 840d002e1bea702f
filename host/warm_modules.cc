#include "host/warm_modules.h"

#include "modules/native/python_ref.h"

#include <sys/socket.h>

#include <utility>

#include "host/interpreter_state.h"
#include "runtime/base/status_util.h"
#include "runtime/os/unix_socket.h"

namespace pyhost::host {
namespace {

using native::PyRef;

constexpr size_t kLongestReport = 1 << 16;

absl::Status CallModule(const char* function, PyRef argument) {
  PyRef module = PyRef::Steal(PyImport_ImportModule("multiprocessing.warm_modules"));
  PyRef name = PyRef::Steal(PyUnicode_FromString(function));
  if (!module || !name || !argument ||
      !PyRef::Steal(PyObject_CallMethodOneArg(module.get(), name.get(), argument.get()))) {
    return TakePythonError(function);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<WarmModules> WarmModules::Serve() {
  PYHOST_ASSIGN_OR_RETURN(auto ends, DatagramSocketPair());
  PYHOST_RETURN_IF_ERROR(CallModule("serve", PyRef::Steal(PyLong_FromLong(ends.second.get()))));
  return WarmModules(std::move(ends.first), std::move(ends.second));
}

absl::Status WarmModules::ImportFor(const std::string& script) {
  return CallModule("warm_script", PyRef::Steal(PyUnicode_DecodeFSDefault(script.c_str())));
}

void WarmModules::Receive() {
  std::string report(kLongestReport, '\0');
  const ssize_t size = recv(reports_.get(), report.data(), report.size(), MSG_DONTWAIT);
  if (size <= 0) return;
  report.resize(static_cast<size_t>(size));
  report_ = std::move(report);
  reports_.reset();  // The first counts; who reports later is told so by an error.
}

absl::Status WarmModules::Import() {
  const std::string report = std::exchange(report_, {});
  childrens_end_.reset();
  return CallModule("warm_up", PyRef::Steal(PyBytes_FromStringAndSize(report.data(), static_cast<Py_ssize_t>(report.size()))));
}

}  // namespace pyhost::host
