// EmbeddedInterpreter: one Python interpreter in the engine's own process, with pyhost's multiprocessing in it.
//
//   auto python = pyhost::EmbeddedInterpreter::Start({.python_path = {"scripts"}});   // StatusOr
//   absl::Status status = (*python)->Run("import brain; brain.load()");
//   absl::StatusOr<double> urgency = (*python)->Call<double>("brain:urgency", npc_id, "forest");
//
// For engines that also want Python beside their own objects; a WorkerPool (worker_pool.h) needs none of this.  A script that
// crashes in here takes the engine along, and all calls share one GIL.  What scripts start with multiprocessing or
// ProcessPoolExecutor are `pyhost` processes, never the engine again: its main() runs once.
//
// Library pyhost_python, on top of pyhost: links the shared libpython that it was built for.  An engine may use Python's C API beside
// it, with PyGILState_Ensure, between Start() and the destructor.
//
// Thread safety: Start() and the destructor belong to one thread, which is Python's main thread.  Run and Call may be used by
// any thread; each takes the GIL, which nobody holds between calls.
//
// One interpreter life a process.  The destructor does what users see of Python's end (non-daemon threads are waited for, atexit
// functions run, multiprocessing's children end as at a program's end, streams are flushed), and leaves the interpreter's memory
// to the end of the process: threads that want to run Python after that stop for good.

#ifndef PYHOST_EMBEDDED_INTERPRETER_H_
#define PYHOST_EMBEDDED_INTERPRETER_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "pyhost/codec.h"

namespace pyhost {

struct InterpreterOptions {
  // Folders put in front of sys.path; relative ones are relative to the engine's working directory.
  std::vector<std::string> python_path = {};
  // Folder of a virtual environment whose packages scripts see.
  std::string virtual_env = {};
  // sys.argv.
  std::vector<std::string> arguments = {""};
  // Whether PYTHON* variables, the user's site-packages and Python's own signal handlers (SIGINT) are wanted.  An engine
  // mostly wants none of these.
  bool use_environment = false;
  bool install_signal_handlers = false;
  // The program that children are.  Empty: as for Options::program (options.h).
  std::string program = {};
};

class EmbeddedInterpreter {
 public:
  // NotFound: the program or its modules are missing (it says where it looked), or the virtual environment is.
  // FailedPrecondition: this process has, or has had, an interpreter.
  static absl::StatusOr<std::unique_ptr<EmbeddedInterpreter>> Start(const InterpreterOptions& options = {});
  ~EmbeddedInterpreter();
  EmbeddedInterpreter(const EmbeddedInterpreter&) = delete;
  EmbeddedInterpreter& operator=(const EmbeddedInterpreter&) = delete;

  // Runs source code in the module __main__.  `name` stands in tracebacks.
  absl::Status Run(std::string_view source, std::string_view name = "<engine>");

  // Calls a function of a module, which is imported when it is not yet.  Values cross as in a WorkerPool (codec.h): by copy.
  // Errors are those of a WorkerPool's call, and carry the traceback.
  template <typename R, typename... A>
  absl::StatusOr<R> Call(std::string_view function, const A&... arguments);

 private:
  EmbeddedInterpreter() = default;
  absl::StatusOr<std::string> CallPickled(std::string_view function, const EncodedValue& arguments);
  void* main_thread_ = nullptr;  // PyThreadState*
};

template <typename R, typename... A>
absl::StatusOr<R> EmbeddedInterpreter::Call(std::string_view function, const A&... arguments) {
  absl::StatusOr<EncodedValue> encoded = EncodeArguments(arguments...);
  if (!encoded.ok()) return encoded.status();
  absl::StatusOr<std::string> result = CallPickled(function, *encoded);
  if (!result.ok()) return result.status();
  return DecodeValue<R>(*result, {});
}

}  // namespace pyhost

#endif  // PYHOST_EMBEDDED_INTERPRETER_H_
