#include "runtime/os/launcher.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
// Boost 1.81 uses these without including them.
#include <boost/optional.hpp>
#include <boost/type_traits/decay.hpp>
#include <boost/type_traits/is_convertible.hpp>

#include <boost/process/v2/posix/vfork_launcher.hpp>
#include <boost/process/v2/process.hpp>
#include <boost/system/system_error.hpp>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "runtime/base/status_util.h"
#include "runtime/os/unique_fd.h"

extern "C" __attribute__((weak)) void __asan_init();

namespace pyhost {
namespace {

namespace process = boost::process::v2;
using process::error_code;

std::vector<const char*> Pointers(const std::vector<std::string>& texts) {
  std::vector<const char*> pointers;
  pointers.reserve(texts.size() + 1);
  for (const std::string& text : texts) pointers.push_back(text.c_str());
  pointers.push_back(nullptr);
  return pointers;
}

// What we do in the new process before it becomes another program, as an initializer of Boost.Process.  The new
// process borrows our memory but has a descriptor table of its own; nothing here allocates.
class ChildSetup {
 public:
  explicit ChildSetup(const LaunchOptions& options)
      : arguments_(Pointers(options.arguments)), descriptors_(options.descriptors), copies_(descriptors_.size(), -1) {
    for (const LaunchOptions::Descriptor& descriptor : descriptors_) above_ = std::max(above_, descriptor.theirs + 1);
  }

  int error() const { return error_; }

  template <typename AnyLauncher, typename Path>
  error_code on_setup(AnyLauncher&, const Path&, const char* const*& command_line) {
    command_line = arguments_.data();
    return {};
  }

  template <typename AnyLauncher, typename Path>
  error_code on_exec_setup(AnyLauncher&, const Path&, const char* const* (&)) {
    if (!MarkAllCloseOnExec() || !PlaceDescriptors()) return error_code(errno, boost::system::system_category());
    return {};
  }

  // Boost would call exit() here, and with it the exit functions of the process that lent us its memory.
  template <typename AnyLauncher, typename Path>
  void on_exec_error(AnyLauncher&, const Path&, const char* const* (&), const error_code& code) {
    error_ = code.value();
    _exit(127);
  }
  // What Boost 1.81 looks for before it calls the one above.
  template <typename AnyLauncher, typename Path>
  void on_exec_error(AnyLauncher& launcher, const error_code&, const Path& path, const char* const* (&command_line),
                     const error_code& code) {
    on_exec_error(launcher, path, command_line, code);
  }

 private:
  static constexpr unsigned kCloseOnExec = 4;  // CLOSE_RANGE_CLOEXEC, Linux 5.11

  bool MarkAllCloseOnExec() {
    if (syscall(SYS_close_range, 3u, ~0u, kCloseOnExec) == 0) return true;
    long limit = sysconf(_SC_OPEN_MAX);
    for (int fd = 3; fd < limit; ++fd) fcntl(fd, F_SETFD, FD_CLOEXEC);
    return true;
  }

  // First out of each other's way, then to their places.
  bool PlaceDescriptors() {
    for (size_t i = 0; i < descriptors_.size(); ++i) {
      copies_[i] = fcntl(descriptors_[i].ours, F_DUPFD_CLOEXEC, above_);
      if (copies_[i] < 0) return false;
    }
    for (size_t i = 0; i < descriptors_.size(); ++i) {
      if (dup2(copies_[i], descriptors_[i].theirs) < 0) return false;
    }
    return true;
  }

  std::vector<const char*> arguments_;
  const std::vector<LaunchOptions::Descriptor>& descriptors_;
  std::vector<int> copies_;
  int above_ = 3;
  int error_ = 0;
};

class ProcessLauncher final : public Launcher {
 public:
  absl::StatusOr<pid_t> Launch(const LaunchOptions& options) override {
    std::vector<const char*> environment = Pointers(options.environment);
    process::posix::vfork_launcher launcher;
    launcher.env = environment.data();
    for (const LaunchOptions::Descriptor& descriptor : options.descriptors) {
      launcher.fd_whitelist.push_back(descriptor.theirs);
    }
    // Kept descriptors must be ordered and without repetition.
    std::sort(launcher.fd_whitelist.begin(), launcher.fd_whitelist.end());
    launcher.fd_whitelist.erase(std::unique(launcher.fd_whitelist.begin(), launcher.fd_whitelist.end()),
                                launcher.fd_whitelist.end());
    ChildSetup setup(options);
    error_code error = Start(launcher, options, setup);
    if (setup.error() != 0) return Failed(options, launcher.pid, setup.error());
    if (launcher.pid < 0) return NoProcess(options, error ? error.value() : EAGAIN);
    return launcher.pid;
  }

 private:
  static error_code Start(process::posix::vfork_launcher& launcher, const LaunchOptions& options, ChildSetup& setup) {
    boost::asio::io_context context;
    error_code error;
    try {
      auto child = launcher(context.get_executor(), error, process::filesystem::path(options.program),
                            std::vector<std::string>(), setup);
      child.detach();
    } catch (const boost::system::system_error& thrown) {
      // Boost's own handle of the process, which nobody needs, could not be opened: no descriptor is free.  The
      // process runs; launcher.pid says which.
      error = thrown.code();
    }
    return error;
  }

  static absl::Status NoProcess(const LaunchOptions& options, int error) {
    rlimit limit = {};
    getrlimit(RLIMIT_NPROC, &limit);
    std::string bound = limit.rlim_cur == RLIM_INFINITY ? "unlimited" : absl::StrCat(limit.rlim_cur);
    return ErrnoStatus(error, absl::StrCat("vfork to launch ", options.program,
                                           " (the limit of processes RLIMIT_NPROC is ", bound, ")"));
  }

  static absl::Status Failed(const LaunchOptions& options, pid_t pid, int error) {
    while (pid > 0 && waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    return ErrnoStatus(error, absl::StrCat("launch ", options.program));
  }
};

struct DetachedLaunch {
  Launcher* launcher;
  const LaunchOptions* options;
  absl::Status status;
};

int RunIntermediate(void* argument) {
  auto* launch = static_cast<DetachedLaunch*>(argument);
  launch->status = launch->launcher->Launch(*launch->options).status();
  return 0;
}

constexpr size_t kStackBytes = 256 * 1024;

// Runs the intermediate process to its end.
absl::Status RunIntermediateOn(char* stack, DetachedLaunch& launch) {
  // No exit signal: its end sends no SIGCHLD, and only a wait that asks for such children (__WCLONE) finds it.
  const pid_t pid = clone(RunIntermediate, stack + kStackBytes, CLONE_VM | CLONE_VFORK, &launch);
  if (pid < 0) return ErrnoStatus(errno, absl::StrCat("clone to launch ", launch.options->program));
  while (waitpid(pid, nullptr, __WCLONE) < 0 && errno == EINTR) {
  }
  return absl::OkStatus();
}

// Threads of engines may have small stacks.
absl::Status RunOnItsOwnStack(DetachedLaunch& launch) {
  void* stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (stack == MAP_FAILED) return ErrnoStatus(errno, "mmap a stack to launch from");
  absl::Status cloned = RunIntermediateOn(static_cast<char*>(stack), launch);
  munmap(stack, kStackBytes);
  return cloned;
}

// AddressSanitizer's vfork marks as usable what lies between the thread's stack and where vfork was called: everything,
// if that was on another stack.
absl::Status RunOnThisStack(DetachedLaunch& launch) {
  alignas(16) char stack[kStackBytes];
  return RunIntermediateOn(stack, launch);
}

// Whether the program was built with it, be it that this library was not.
bool HasAddressSanitizer() { return &__asan_init != nullptr; }

}  // namespace

std::unique_ptr<Launcher> NewProcessLauncher() { return std::make_unique<ProcessLauncher>(); }

absl::Status LaunchDetached(Launcher& launcher, const LaunchOptions& options) {
  DetachedLaunch launch = {&launcher, &options,
                           absl::InternalError(absl::StrCat("the process that was to launch ", options.program, " died"))};
  // A signal handler must not run on the borrowed memory.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  const absl::Status cloned = HasAddressSanitizer() ? RunOnThisStack(launch) : RunOnItsOwnStack(launch);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return cloned.ok() ? launch.status : cloned;
}

std::vector<std::string> CurrentEnvironment() {
  std::vector<std::string> environment;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) environment.emplace_back(*entry);
  return environment;
}

}  // namespace pyhost
