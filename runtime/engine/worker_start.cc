#include "runtime/engine/worker_start.h"

#include <fcntl.h>
#include <sched.h>

#include <cerrno>
#include <charconv>
#include <filesystem>
#include <span>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/status_util.h"
#include "runtime/engine/fault_file.h"
#include "runtime/os/launcher.h"
#include "runtime/os/unix_socket.h"
#include "runtime/supervision/protocol.h"
#include "runtime/supervision/wire.h"

namespace pyhost {
namespace {

// Every processor that some thread of this process may use.
cpu_set_t AllProcessors() {
  cpu_set_t all;
  CPU_ZERO(&all);
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task", error)) {
    const std::string name = entry.path().filename().string();
    pid_t thread = 0;
    std::from_chars(name.data(), name.data() + name.size(), thread);
    cpu_set_t of_thread;
    if (sched_getaffinity(thread, sizeof(of_thread), &of_thread) == 0) CPU_OR(&all, &all, &of_thread);
  }
  return all;
}

bool IsVariable(std::string_view entry, std::string_view name) {
  return entry.size() > name.size() && entry.starts_with(name) && entry[name.size()] == '=';
}

std::vector<std::string> EnvironmentFor(const Options& options) {
  std::vector<std::string> environment = CurrentEnvironment();
  const auto set = [&](const std::string& name, const std::string& value) {
    std::erase_if(environment, [&](const std::string& entry) { return IsVariable(entry, name); });
    if (!value.empty()) environment.push_back(absl::StrCat(name, "=", value));
  };
  for (const auto& [name, value] : options.environment) set(name, value);
  if (!options.virtual_env.empty()) set("VIRTUAL_ENV", options.virtual_env);
  return environment;
}

absl::StatusOr<UniqueFd> OpenFolder(const std::string& path) {
  if (path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError("Options::working_directory has a zero byte in it");
  }
  UniqueFd fd(open(path.empty() ? "." : path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return ErrnoStatus(errno, absl::StrCat("the workers' working directory '", path, "'"));
  return MoveToHighNumber(std::move(fd));
}

absl::StatusOr<UniqueFd> OpenNoInput() {
  UniqueFd fd(open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return ErrnoStatus(errno, "open /dev/null");
  return MoveToHighNumber(std::move(fd));
}

}  // namespace

absl::Status CheckEnvironment(const Options& options) {
  for (const auto& [name, value] : options.environment) {
    if (name.empty() || name.find_first_of(std::string_view("=\0", 2)) != std::string::npos) {
      return absl::InvalidArgumentError(absl::StrCat("Options::environment: '", name, "' is no name of a variable"));
    }
    if (value.find('\0') == std::string::npos) continue;
    return absl::InvalidArgumentError(absl::StrCat("Options::environment: the value of ", name, " has a zero byte in it"));
  }
  std::error_code error;
  const std::filesystem::path folder = options.virtual_env;
  if (folder.empty() || std::filesystem::is_regular_file(folder / "pyvenv.cfg", error)) return absl::OkStatus();
  return absl::NotFoundError(
      absl::StrCat("Options::virtual_env '", options.virtual_env, "' is no virtual environment: it has no pyvenv.cfg"));
}

absl::StatusOr<std::unique_ptr<WorkerStarter>> WorkerStarter::Create(Session* session, const Options& options,
                                                                     const std::string& version) {
  std::unique_ptr<WorkerStarter> starter(new WorkerStarter(session, options, version));
  PYHOST_ASSIGN_OR_RETURN(starter->working_directory_, OpenFolder(options.working_directory));
  PYHOST_ASSIGN_OR_RETURN(starter->no_input_, OpenNoInput());
  StartOverrides& overrides = starter->overrides_;
  overrides.environment = EnvironmentFor(options);
  overrides.standard[0] = starter->no_input_.get();
  overrides.working_directory = starter->working_directory_.get();
  overrides.affinity = AllProcessors();
  overrides.data_limit = options.worker_memory_limit;
  overrides.default_signals = true;
  return starter;
}

absl::StatusOr<std::unique_ptr<ChildProcess>> WorkerStarter::Start(const WorkerSeat& seat, Wait wait) {
  PYHOST_ASSIGN_OR_RETURN(
      std::unique_ptr<ChildStart> start,
      ChildStart::Create(session_, absl::StrCat("worker ", seat.number), static_cast<uint32_t>(HostFlag::kWorker)));
  for (Handle lane : seat.lanes) PYHOST_RETURN_IF_ERROR(start->Share(lane));
  start->AddDescriptor(seat.faults);
  StartOverrides overrides = overrides_;
  overrides.standard[1] = overrides.standard[2] = seat.output;
  start->Override(std::move(overrides));
  ServerSpec server;
  server.program = options_.program;
  server.method = "engine";
  const std::string body = Body(seat);
  PYHOST_ASSIGN_OR_RETURN(auto process, start->Commit(server, std::as_bytes(std::span(body)), wait));
  process->MoveSentinel();
  return process;
}

// As modules/pyhost/engine.py reads it: names, each with its texts.
std::string WorkerStarter::Body(const WorkerSeat& seat) const {
  const auto one = [](const auto& value) { return std::vector<std::string>{absl::StrCat(value)}; };
  std::vector<std::string> lanes;
  for (Handle lane : seat.lanes) lanes.push_back(absl::StrCat(lane.value()));
  const std::vector<std::pair<std::string_view, std::vector<std::string>>> settings = {
      {"version", one(version_)},
      {"lanes", lanes},
      {"wait_at", one(seat.wait_at)},
      {"hot", one(options_.hot_workers ? 1 : 0)},
      {"faults", one(seat.faults)},
      {"dump_signal", one(FaultFile::DumpSignal())},
      {"python_path", options_.python_path},
      {"preload", options_.preload},
      {"startup", options_.startup_code.empty() ? std::vector<std::string>() : one(options_.startup_code)},
  };
  WireWriter writer;
  writer.Number(settings.size());
  for (const auto& [name, texts] : settings) {
    writer.Text(name);
    writer.Texts(texts);
  }
  return writer.Take();
}

}  // namespace pyhost
