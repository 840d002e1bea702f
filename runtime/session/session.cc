#include "runtime/session/session.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/crash_point.h"
#include "runtime/base/deadline.h"
#include "runtime/base/status_util.h"
#include "runtime/os/pidfd.h"
#include "runtime/os/unix_socket.h"
#include "runtime/segment/handle_refs.h"
#include "runtime/segment/object_table.h"
#include "runtime/supervision/process_status.h"

namespace pyhost {
namespace {

// How long a fork may take to adopt its embryo before the embryo counts as abandoned.
constexpr int64_t kAdoptionNanos = 5'000'000'000;

// How long a supervisor that is being launched may take until it has a pid.
constexpr absl::Duration kSupervisorPatience = absl::Seconds(5);

std::atomic<Session*> current{nullptr};

// Held while a session is created and around every fork.  In the child it is made anew: threads that waited for it do
// not exist there.
std::mutex& CreationMutex() {
  static std::mutex* mutex = new std::mutex;
  return *mutex;
}

absl::StatusOr<std::pair<UniqueFd, UniqueFd>> LifePipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe2");
  UniqueFd read_end(ends[0]), write_end(ends[1]);
  PYHOST_ASSIGN_OR_RETURN(read_end, MoveToHighNumber(std::move(read_end)));
  PYHOST_ASSIGN_OR_RETURN(write_end, MoveToHighNumber(std::move(write_end)));
  return std::make_pair(std::move(read_end), std::move(write_end));
}

}  // namespace

Session* Session::Current() { return current.load(std::memory_order_acquire); }

absl::StatusOr<Session*> Session::Ensure(const SessionOptions& options) {
  std::lock_guard<std::mutex> lock(CreationMutex());
  if (Session* session = Current()) {
    if (session->me()) return session;
    return absl::FailedPreconditionError(
        "this process was forked behind Python's back (not by os.fork or multiprocessing) from a process of a pyhost "
        "session, and has no place in it: start it with os.fork() or as a program of its own");
  }
  PYHOST_ASSIGN_OR_RETURN(std::unique_ptr<Session> session, Create(options));
  current.store(session.release(), std::memory_order_release);
  return Current();
}

absl::StatusOr<std::unique_ptr<Session>> Session::Create(const SessionOptions& options) {
  std::unique_ptr<Session> session(new Session);
  // Everybody's end is learned through it.  Said now, before anything was started.
  PYHOST_RETURN_IF_ERROR(Annotate(OpenPidfd(getpid()).status(), "pyhost cannot watch processes"));
  PYHOST_ASSIGN_OR_RETURN(ProcessStatus status, ProcessStatus::Read());
  PYHOST_ASSIGN_OR_RETURN(session->profile_, ServerProfile::Capture(status));
  PYHOST_ASSIGN_OR_RETURN(session->segment_, Segment::Create(options.segment));
  session->program_ = options.program;
  HostTable& hosts = session->segment_->hosts();
  PYHOST_ASSIGN_OR_RETURN(session->root_, hosts.CreateEmbryo({HostId(), options.root_flags, options.name, Handle()}));
  PYHOST_RETURN_IF_ERROR(session->TakeIdentity(session->root_));
  PYHOST_ASSIGN_OR_RETURN(
      session->supervisor_,
      hosts.CreateEmbryo({session->root_, static_cast<uint32_t>(HostFlag::kSupervisor), "supervisor", Handle()}));
  PYHOST_ASSIGN_OR_RETURN(auto ends, DatagramSocketPair());
  PYHOST_ASSIGN_OR_RETURN(UniqueFd file, DuplicateHigh(session->segment_->fd()));
  session->control_ = GuardedDescriptor(std::move(ends.second));
  session->segment_file_ = GuardedDescriptor(std::move(file));
  session->control_number_ = session->control_.fd();
  session->segment_number_ = session->segment_file_.fd();
  session->GuardSegment();
  std::unique_ptr<Launcher> real = options.launcher == nullptr ? NewProcessLauncher() : nullptr;
  PYHOST_RETURN_IF_ERROR(
      session->LaunchSupervisor(options.launcher == nullptr ? *real : *options.launcher, ends.first.get()));
  ends.first.reset();
  PYHOST_RETURN_IF_ERROR(session->Announce());
  return session;
}

absl::Status Session::LaunchSupervisor(Launcher& launcher, int supervisor_end) {
  PYHOST_ASSIGN_OR_RETURN(SessionTicket ticket, TicketFor(supervisor_));
  LaunchOptions launch;
  launch.program = program_;
  launch.arguments = {"pyhost-supervisor", "--pyhost-internal=supervisor",
                      absl::StrCat("--supervisor-end=", supervisor_end)};
  for (std::string& word : ticket.ToArguments()) launch.arguments.push_back(std::move(word));
  launch.environment = CurrentEnvironment();
  for (int fd : {supervisor_end, ticket.segment_fd, ticket.control_fd}) launch.descriptors.push_back({fd, fd});
  return Annotate(LaunchDetached(launcher, launch), "start the session's supervisor");
}

absl::Status Session::TakeIdentity(HostId me) {
  if (page_ == nullptr) {
    PYHOST_ASSIGN_OR_RETURN(page_, ForkWipedPage::Create());
    identity_ = new (page_->data()) HostId;
  }
  PYHOST_RETURN_IF_ERROR(segment_->hosts().Adopt(me));
  *identity_ = me;
  return absl::OkStatus();
}

absl::StatusOr<Session*> Session::Join(const SessionTicket& ticket) {
  std::lock_guard<std::mutex> lock(CreationMutex());
  if (Current() != nullptr) return absl::FailedPreconditionError("this process is in a pyhost session already");
  std::unique_ptr<Session> session(new Session);
  session->control_ = GuardedDescriptor(UniqueFd(ticket.control_fd));
  session->segment_file_ = GuardedDescriptor(UniqueFd(ticket.segment_fd));
  for (int fd : {ticket.control_fd, ticket.segment_fd}) {
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) return ErrnoStatus(errno, absl::StrCat("inherited descriptor ", fd));
  }
  PYHOST_ASSIGN_OR_RETURN(session->segment_, Segment::Attach(ticket.segment_fd));
  session->supervisor_ = ticket.supervisor;
  session->root_ = ticket.root;
  session->program_ = ticket.program;
  session->profile_ = ticket.profile;
  session->control_number_ = ticket.control_number;
  session->segment_number_ = ticket.segment_number;
  session->GuardSegment();
  PYHOST_RETURN_IF_ERROR(session->TakeIdentity(ticket.me));
  PYHOST_RETURN_IF_ERROR(session->Announce());
  current.store(session.release(), std::memory_order_release);
  return Current();
}

absl::StatusOr<SessionTicket> Session::TicketFor(HostId child) {
  std::lock_guard<std::mutex> lock(descriptors_mutex_);
  PYHOST_RETURN_IF_ERROR(Repair(&control_, control_number_, "control socket"));
  PYHOST_RETURN_IF_ERROR(Repair(&segment_file_, segment_number_, "segment"));
  SessionTicket ticket;
  ticket.segment_fd = segment_file_.fd();
  ticket.control_fd = control_.fd();
  ticket.me = child;
  ticket.supervisor = supervisor_;
  ticket.root = root_;
  ticket.control_number = control_number_;
  ticket.segment_number = segment_number_;
  ticket.profile = profile_;
  ticket.program = program_;
  return ticket;
}

absl::StatusOr<UniqueFd> Session::OpenSegmentFile() {
  std::lock_guard<std::mutex> lock(descriptors_mutex_);
  PYHOST_RETURN_IF_ERROR(Repair(&segment_file_, segment_number_, "segment"));
  const std::string path = absl::StrCat("/proc/self/fd/", segment_file_.fd());
  UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return ErrnoStatus(errno, absl::StrCat("open ", path, ", the segment's file (is /proc mounted?)"));
  return file;
}

absl::StatusOr<UniqueFd> Session::TakeFromSupervisor(int number_there, std::string_view what) {
  auto lost = [&](const absl::Status& why) {
    return absl::UnavailableError(absl::StrCat(
        "the program closed pyhost's ", std::string(what),
        ", and it could not be taken back from the supervisor: ", std::string(why.message()),
        ".  Keep descriptors from ", kInternalDescriptorBase, " up open when closing all"));
  };
  // It may have been launched just now.
  absl::StatusOr<pid_t> pid =
      segment_->hosts().WaitForPid(supervisor_, Wait{.deadline = Deadline::After(kSupervisorPatience)});
  if (!pid.ok()) return lost(pid.status());
  absl::StatusOr<UniqueFd> process = OpenPidfd(*pid);
  if (!process.ok() || segment_->hosts().ProcessIsGone(supervisor_)) return lost(absl::NotFoundError("it is gone"));
  absl::StatusOr<UniqueFd> copy = TakeDescriptor(process->get(), number_there);
  if (!copy.ok()) return lost(copy.status());
  return MoveToHighNumber(*std::move(copy));
}

absl::Status Session::Repair(GuardedDescriptor* descriptor, int number_there, std::string_view what) {
  if (descriptor->Intact()) return absl::OkStatus();
  PYHOST_ASSIGN_OR_RETURN(UniqueFd copy, TakeFromSupervisor(number_there, what));
  if (descriptor->Restore(std::move(copy))) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("the supervisor has another file in the place of pyhost's ", std::string(what)));
}

void Session::GuardSegment() {
  segment_->set_recovery([this] { return TakeFromSupervisor(segment_number_, "segment"); });
}

absl::Status Session::SendToSupervisor(const ControlMessage& message, std::span<const int> fds, Wait wait) {
  int socket;
  {
    std::lock_guard<std::mutex> lock(descriptors_mutex_);
    PYHOST_RETURN_IF_ERROR(Repair(&control_, control_number_, "control socket"));
    socket = control_.fd();
  }
  absl::Status status = SendDatagram(socket, AsBytes(message), fds, wait);
  if (!absl::IsUnavailable(status)) return status;
  absl::StatusOr<HostInfo> info = segment_->hosts().Info(supervisor_);
  if (info.ok() && info->pid == 0) {
    return absl::UnavailableError(absl::StrCat("the program '", program_,
                                               "' is not pyhost, or could not begin: it ended before it was the session's "
                                               "supervisor"));
  }
  return absl::UnavailableError(absl::StrCat(
      "pyhost's supervisor (pid ", info.ok() ? info->pid : 0,
      ") is gone: it was killed.  What runs goes on, but no process can be started by fork servers any more; "
      "restart the program"));
}

bool Session::SupervisorIsGone() {
  {
    std::lock_guard<std::mutex> lock(descriptors_mutex_);
    if (control_.Intact() && PeerIsGone(control_.fd())) return true;
  }
  absl::StatusOr<HostInfo> info = segment_->hosts().Info(supervisor_);
  return !info.ok() || info->exit.ended() || (info->pid != 0 && segment_->hosts().ProcessIsGone(supervisor_));
}

absl::Status Session::Announce() {
  PYHOST_ASSIGN_OR_RETURN(auto ends, LifePipe());
  {
    std::lock_guard<std::mutex> lock(descriptors_mutex_);
    life_ = GuardedDescriptor(std::move(ends.second));
  }
  int read_end = ends.first.get();
  return SendToSupervisor({.type = MessageType::kWatch, .host = me().value()}, std::span(&read_end, 1), Wait::Forever());
}

absl::Status Session::BeforeFork() {
  CreationMutex().lock();
  Session* session = Current();
  return session != nullptr && session->me() ? session->ReserveEmbryo() : absl::OkStatus();
}

absl::Status Session::ReserveEmbryo() {
  descriptors_mutex_.lock();
  SettleForkedEmbryos();
  parent_ = me();
  fork_result_ = 0;
  embryo_ = std::exchange(prepared_, HostId());
  const bool unborn = std::exchange(unborn_, false);
  was_prepared_ = unborn || embryo_;
  std::string name = std::exchange(next_name_, "");
  uint32_t flags = std::exchange(next_flags_, 0) | static_cast<uint32_t>(HostFlag::kForked);
  fork_status_ = absl::OkStatus();
  if (!was_prepared_) {
    absl::StatusOr<HostId> embryo = segment_->hosts().CreateEmbryo({parent_, flags, name, Handle()});
    if (embryo.ok()) embryo_ = *embryo;
    fork_status_ = embryo.status();
  }
  segment_->refs().BeforeFork();
  if (embryo_) segment_->objects().DuplicateHolds(parent_, embryo_);
  PYHOST_CRASH_POINT("fork-embryo-has-holds");
  return fork_status_;
}

HostId Session::AfterForkParent() {
  Session* session = Current();
  HostId child;
  if (session != nullptr && session->parent_) child = session->SettleFork();
  CreationMutex().unlock();
  return child;
}

HostId Session::SettleFork() {
  HostId embryo = std::exchange(embryo_, HostId());
  last_forked_ = embryo;
  parent_ = HostId();
  pid_t child = std::exchange(fork_result_, 0);
  segment_->refs().AfterForkParent();
  segment_->refs().ReleaseLate(me());
  descriptors_mutex_.unlock();
  if (!embryo) return embryo;
  if (child < 0) {
    if (!was_prepared_) CancelEmbryo(embryo, {ExitStatus::Kind::kNotStarted, EAGAIN}, "fork failed");
    return HostId();
  }
  if (child == 0) forked_.push_back({embryo, Deadline::MonotonicNanos()});
  // The child says so itself, too; whoever is first.
  if (child > 0) segment_->hosts().SetPid(embryo, child).IgnoreError();
  return embryo;
}

absl::Status Session::AfterForkChild() {
  new (&CreationMutex()) std::mutex;
  Session* session = Current();
  if (session == nullptr || !session->parent_) return absl::OkStatus();
  new (&session->descriptors_mutex_) std::mutex;
  HostId parent = std::exchange(session->parent_, HostId());
  HostId embryo = std::exchange(session->embryo_, HostId());
  session->forked_.clear();
  session->segment_->refs().AfterForkChild(parent, embryo);
  session->life_.Close();
  if (!embryo) return absl::OkStatus();
  PYHOST_CRASH_POINT("fork-child-before-adopt");
  PYHOST_RETURN_IF_ERROR(session->TakeIdentity(embryo));
  session->segment_->refs().ReleaseLate(embryo);
  return session->Announce();
}

absl::Status Session::TakePlace(HostId embryo) {
  segment_->refs().ChangeHost(HostId(), embryo);
  PYHOST_RETURN_IF_ERROR(TakeIdentity(embryo));
  segment_->refs().ReleaseLate(embryo);
  // It has its place, whether the supervisor is there to hear of it or not.
  Announce().IgnoreError();
  return absl::OkStatus();
}

// Embryos of os.fork() calls whose result nobody told us: adopted by now, or never to be.
void Session::SettleForkedEmbryos() {
  int64_t now = Deadline::MonotonicNanos();
  std::erase_if(forked_, [&](const ForkedEmbryo& forked) {
    absl::StatusOr<HostInfo> info = segment_->hosts().Info(forked.id);
    bool adopted = !info.ok() || info->state != HostState::kEmbryo;
    if (!adopted && now - forked.since < kAdoptionNanos) return false;
    if (!adopted) CancelEmbryo(forked.id, {ExitStatus::Kind::kNotStarted, EAGAIN}, "the fork did not happen");
    segment_->hosts().Unwatch(forked.id, me());
    return true;
  });
}

void Session::CancelEmbryo(HostId embryo, ExitStatus status, std::string_view reason) {
  HostTable& hosts = segment_->hosts();
  hosts.SetRunning(embryo, reason);
  hosts.SetExit(embryo, status, /*truth=*/true);
  if (!hosts.BeginRecovery(embryo, me())) return;
  segment_->objects().Recover(embryo, me());
  hosts.DropWatches(embryo);
  hosts.FinishRecovery(embryo);
}

void Session::Leave(int exit_code) {
  if (!me()) return;
  segment_->hosts().SetExit(me(), {ExitStatus::Kind::kExited, exit_code & 0xff}, /*truth=*/false);
}

}  // namespace pyhost
