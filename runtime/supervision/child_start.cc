#include "runtime/supervision/child_start.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "runtime/base/crash_point.h"
#include "runtime/base/status_util.h"
#include "runtime/os/unix_socket.h"
#include "runtime/segment/object_table.h"
#include "runtime/supervision/process_status.h"
#include "runtime/supervision/start_attributes.h"

namespace pyhost {
namespace {

// Who waits for an answer looks this often whether the supervisor is still there to give it.
constexpr absl::Duration kPatience = absl::Milliseconds(100);

// A Memory object with the payload in it, held by `me`.
absl::StatusOr<Handle> StorePayload(Segment& segment, HostId me, std::string_view head,
                                    std::span<const std::byte> body) {
  PYHOST_ASSIGN_OR_RETURN(Handle handle,
                          segment.objects().Create(ObjectKind::kMemory, head.size() + body.size(), me));
  PYHOST_ASSIGN_OR_RETURN(std::span<std::byte> block, segment.objects().Block(handle));
  std::memcpy(block.data(), head.data(), head.size());
  if (!body.empty()) std::memcpy(block.data() + head.size(), body.data(), body.size());
  return handle;
}

absl::Status SupervisorKilled() {
  return absl::UnavailableError("pyhost's supervisor was killed while it started a process; restart the program");
}

// Opens a descriptor so that one is free later, when the child exists and must be kept track of.
absl::StatusOr<UniqueFd> ReserveDescriptor() {
  UniqueFd fd(open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (fd.valid()) return fd;
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  return ErrnoStatus(errno, absl::StrCat("no descriptor left for a new process's sentinel (RLIMIT_NOFILE is ",
                                         limit.rlim_cur, ")"));
}

void Apply(const StartOverrides& overrides, StartAttributes* attributes, StartDescriptors* descriptors) {
  if (overrides.environment) attributes->environment = *overrides.environment;
  if (overrides.affinity) attributes->affinity = *overrides.affinity;
  if (overrides.default_signals) attributes->ignored_signals = attributes->blocked_signals = 0;
  if (overrides.data_limit != 0) {
    rlimit& limit = attributes->limits[RLIMIT_DATA];
    limit.rlim_max = std::min<rlim_t>(limit.rlim_max, overrides.data_limit);
    limit.rlim_cur = std::min<rlim_t>(limit.rlim_cur, limit.rlim_max);
  }
  if (overrides.working_directory >= 0) {
    descriptors->Replace(StartAttributes::kWorkingDirectory, overrides.working_directory);
  }
  for (int number = 0; number <= 2; ++number) {
    const int ours = overrides.standard[static_cast<size_t>(number)];
    if (ours >= 0) descriptors->Replace(number, ours);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChildStart>> ChildStart::Create(Session* session, std::string_view name,
                                                               uint32_t flags) {
  PYHOST_ASSIGN_OR_RETURN(HostId id, session->segment().hosts().CreateEmbryo({session->me(), flags, name, Handle()}));
  return std::unique_ptr<ChildStart>(new ChildStart(session, id));
}

absl::Status ChildStart::Share(Handle handle) { return session_->segment().objects().Hold(handle, id_); }

void ChildStart::Abort() {
  if (std::exchange(ended_, true)) return;
  session_->CancelEmbryo(id_, {ExitStatus::Kind::kNotStarted, ECANCELED}, "its start was given up");
  session_->segment().hosts().Unwatch(id_, session_->me());
}

absl::StatusOr<ChildStart::Prepared> ChildStart::Prepare(const ServerSpec& server, std::span<const std::byte> body) {
  Segment& segment = session_->segment();
  PYHOST_ASSIGN_OR_RETURN(ProcessStatus status, ProcessStatus::Read());
  PYHOST_ASSIGN_OR_RETURN(ServerProfile profile, ServerProfile::Capture(status));
  PYHOST_ASSIGN_OR_RETURN(StartAttributes attributes, StartAttributes::Capture(status));
  PYHOST_ASSIGN_OR_RETURN(StartDescriptors descriptors, StartDescriptors::Open(passed_));
  if (overrides_) Apply(*overrides_, &attributes, &descriptors);
  attributes.descriptors = descriptors.numbers();
  uint64_t key = server.Key(attributes.environment);
  std::string head = StartPayload::EncodeHead(attributes.Encode(), server.Encode(), body.size());
  PYHOST_ASSIGN_OR_RETURN(Handle payload, StorePayload(segment, session_->me(), head, body));
  absl::Status held = segment.objects().Hold(payload, id_);
  segment.objects().Drop(payload, session_->me(), session_->me());
  PYHOST_RETURN_IF_ERROR(held);
  segment.hosts().SetPayload(id_, payload);
  PYHOST_CRASH_POINT("start-has-payload");
  bool served = session_->profile().CanServe(profile) && descriptors.fds().size() <= kMaxDescriptorsPerDatagram;
  if (!served && overrides_) {
    return absl::FailedPreconditionError(
        "no fork server may start this child: since the session began this process has changed its user, groups, "
        "capabilities, process group, session, namespaces, root directory, nice value or hard limits");
  }
  return Prepared{key, served, std::move(descriptors)};
}

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildStart::Commit(const ServerSpec& server,
                                                                 std::span<const std::byte> body, Wait wait) {
  PYHOST_ASSIGN_OR_RETURN(Prepared start, Prepare(server, body));
  absl::StatusOr<std::unique_ptr<ChildProcess>> child =
      start.served ? StartByServer(start.key, start.descriptors.fds(), wait) : StartByLaunch(server);
  if (child.ok()) ended_ = true;
  return child;
}

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildStart::StartByServer(uint64_t key, std::span<const int> fds,
                                                                        Wait wait) {
  PYHOST_ASSIGN_OR_RETURN(UniqueFd reserved, ReserveDescriptor());
  ControlMessage message = {.type = MessageType::kStart, .host = id_.value(), .server = key};
  PYHOST_RETURN_IF_ERROR(session_->SendToSupervisor(message, fds, wait));
  PYHOST_CRASH_POINT("start-sent");
  PYHOST_ASSIGN_OR_RETURN(pid_t pid, AwaitPid(wait));
  reserved.reset();
  auto child = ChildProcess::Open(session_, id_, pid, ChildProcess::Reaper::kServer);
  // Nothing may be left running that nobody can control.
  if (!child.ok() && session_->segment().hosts().IsRunning(id_)) kill(pid, SIGKILL);
  return child;
}

absl::StatusOr<pid_t> ChildStart::AwaitPid(Wait wait) {
  for (;;) {
    Wait nap = wait;
    nap.deadline = wait.deadline.AtMost(kPatience);
    absl::StatusOr<pid_t> pid = session_->segment().hosts().WaitForPid(id_, nap);
    if (pid.ok() && *pid > 0) return pid;
    if (session_->segment().hosts().Exit(id_).kind == ExitStatus::Kind::kNotStarted) return WhyNotStarted();
    if (!pid.ok() && !absl::IsDeadlineExceeded(pid.status())) return pid.status();
    if (wait.deadline.Expired()) return absl::DeadlineExceededError("the new process has not started in time");
    if (session_->SupervisorIsGone()) return SupervisorKilled();
    // Who waits may want an end without a signal.
    if (wait.interruptible != nullptr) PYHOST_RETURN_IF_ERROR(wait.interruptible->OnSignal());
  }
}

absl::Status ChildStart::WhyNotStarted() const {
  absl::StatusOr<HostInfo> info = session_->segment().hosts().Info(id_);
  if (!info.ok()) return info.status();
  std::string reason = absl::StrCat("cannot start '", info->name, "': ", info->running);
  if (info->exit.value == 0) return absl::UnavailableError(reason);
  return StatusWithErrno(info->exit.value, reason);
}

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildStart::StartByLaunch(const ServerSpec& server) {
  PYHOST_ASSIGN_OR_RETURN(UniqueFd reserved, ReserveDescriptor());
  PYHOST_ASSIGN_OR_RETURN(SessionTicket ticket, session_->TicketFor(id_));
  ticket.program = server.program;
  LaunchOptions options;
  options.program = server.program;
  options.environment = CurrentEnvironment();
  options.arguments = {server.program, "--pyhost-internal=child"};
  for (std::string& word : ticket.ToArguments()) options.arguments.push_back(std::move(word));
  for (int fd : passed_) options.descriptors.push_back({fd, fd});
  options.descriptors.push_back({ticket.segment_fd, ticket.segment_fd});
  options.descriptors.push_back({ticket.control_fd, ticket.control_fd});
  PYHOST_ASSIGN_OR_RETURN(pid_t pid, NewProcessLauncher()->Launch(options));
  PYHOST_RETURN_IF_ERROR(session_->segment().hosts().SetPid(id_, pid));
  reserved.reset();
  auto child = ChildProcess::Open(session_, id_, pid, ChildProcess::Reaper::kUs);
  if (!child.ok()) {
    kill(pid, SIGKILL);  // our own child: its number is not given away before we reap it
    while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  return child;
}

absl::StatusOr<std::unique_ptr<ChildStart>> ChildStart::AskForServer(Session* session, const ServerSpec& server) {
  PYHOST_ASSIGN_OR_RETURN(auto question, Create(session, absl::StrCat(server.method, " server"), 0));
  PYHOST_ASSIGN_OR_RETURN(Prepared start, question->Prepare(server, {}));
  if (!start.served) return nullptr;
  ControlMessage message = {.type = MessageType::kWarm, .host = question->id_.value(), .server = start.key};
  PYHOST_RETURN_IF_ERROR(session->SendToSupervisor(message, start.descriptors.fds(), Wait::Forever()));
  return question;
}

absl::Status ChildStart::Warm(Session* session, const ServerSpec& server) {
  PYHOST_ASSIGN_OR_RETURN(auto question, AskForServer(session, server));
  if (question == nullptr) return absl::OkStatus();
  // The record is the supervisor's now, which ends it; nobody waits for that.
  question->ended_ = true;
  session->segment().hosts().Unwatch(question->id_, session->me());
  return absl::OkStatus();
}

absl::Status ChildStart::EnsureServer(Session* session, const ServerSpec& server, Wait wait) {
  PYHOST_ASSIGN_OR_RETURN(auto question, AskForServer(session, server));
  return question == nullptr ? absl::OkStatus() : question->AwaitServer(wait);
}

absl::Status ChildStart::AwaitServer(Wait wait) {
  for (;;) {
    Wait nap = wait;
    nap.deadline = wait.deadline.AtMost(kPatience);
    absl::StatusOr<ExitStatus> answer = session_->segment().hosts().WaitForExit(id_, nap);
    if (answer.ok()) return answer->kind == ExitStatus::Kind::kNotStarted ? WhyNotStarted() : absl::OkStatus();
    if (!absl::IsDeadlineExceeded(answer.status()) || wait.deadline.Expired()) return answer.status();
    if (session_->SupervisorIsGone()) return SupervisorKilled();
  }
}

}  // namespace pyhost
