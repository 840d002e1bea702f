#include "host/early_start.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <optional>

#include "host/virtual_env.h"
#include "runtime/os/launcher.h"
#include "runtime/os/unique_fd.h"
#include "runtime/session/session.h"
#include "runtime/supervision/child_start.h"
#include "runtime/supervision/protocol.h"

namespace pyhost::host {
namespace {

// Of a longer script this much is looked at.
constexpr size_t kMostText = 256 * 1024;

bool Has(std::string_view text, std::string_view word) { return text.find(word) != std::string_view::npos; }

// "Pool(", but not "ThreadPool(".
bool CallsPool(std::string_view text) {
  constexpr std::string_view kPool = "Pool(", kThread = "Thread";
  for (size_t at = text.find(kPool); at != std::string_view::npos; at = text.find(kPool, at + 1)) {
    if (!text.substr(0, at).ends_with(kThread)) return true;
  }
  return false;
}

// Empty where it is no file, or cannot be read: then Python will say so.  Only a file is opened: a pipe that is opened and
// closed again costs its writer SIGPIPE, and the program its text.
std::string ReadScript(const std::string& path) {
  struct stat status = {};
  if (stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return "";
  UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.valid()) return "";
  std::string text(std::min(kMostText, static_cast<size_t>(status.st_size)), '\0');
  const ssize_t size = read(file.get(), text.data(), text.size());
  text.resize(size < 0 ? 0 : static_cast<size_t>(size));
  return text;
}

// Options and variables change what a server is started with; what most of them come to, only the interpreter knows.
constexpr std::string_view kWithoutFlags[] = {"PYTHONUNBUFFERED", "PYTHONPATH",     "PYTHONHASHSEED",      "PYTHONIOENCODING",
                                              "PYTHONUTF8",       "PYTHONSTARTUP",  "PYTHONFAULTHANDLER",  "PYTHONPYCACHEPREFIX"};

// The interpreter's options where they are known (native/interpreter_flags.h says the same once it is up), else nothing.
std::optional<std::vector<std::string>> KnownFlags(const std::vector<std::string>& argv) {
  if (argv.size() < 2 || argv[1].empty() || argv[1].front() == '-') return std::nullopt;
  std::vector<std::string> flags;
  for (const std::string& entry : CurrentEnvironment()) {
    const std::string_view name = std::string_view(entry).substr(0, entry.find('='));
    if (!name.starts_with("PYTHON") || name.size() + 1 == entry.size()) continue;  // an empty one is none
    if (std::find(std::begin(kWithoutFlags), std::end(kWithoutFlags), name) != std::end(kWithoutFlags)) continue;
    if (name != "PYTHONDONTWRITEBYTECODE") return std::nullopt;
    flags = {"-B"};
  }
  return flags;
}

}  // namespace

bool WillStartProcesses(std::string_view script) {
  if (!Has(script, "multiprocessing") && !Has(script, "concurrent.futures")) return false;
  if (!Has(script, "Process(") && !Has(script, "ProcessPoolExecutor(") && !CallsPool(script)) return false;
  // Who daemonizes closes what it did not open, and may then become another user, to whom the kernel does not give back
  // what the supervisor has.
  return !Has(script, "'fork") && !Has(script, "\"fork") && !Has(script, "os.fork") && !Has(script, "closerange");
}

bool StartServersEarly(const std::vector<std::string>& argv) {
  const std::optional<std::vector<std::string>> flags = KnownFlags(argv);
  if (!flags || !WillStartProcesses(ReadScript(argv[1]))) return false;
  SessionOptions options;
  options.program = ProgramPath(argv[0]);
  if (options.program.empty()) return false;
  // What goes wrong here goes wrong again, and is told, where a process is started.
  absl::StatusOr<Session*> session = Session::Ensure(options);
  if (!session.ok()) return false;
  ServerSpec spec;
  spec.program = options.program;
  spec.method = "spawn";
  spec.flags = *flags;
  spec.script = argv[1];
  ChildStart::Warm(*session, spec).IgnoreError();
  return true;
}

}  // namespace pyhost::host
