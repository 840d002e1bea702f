#include "runtime/supervision/supervisor.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "runtime/base/status_util.h"
#include "runtime/os/unix_socket.h"
#include "runtime/segment/object_table.h"
#include "runtime/supervision/protocol.h"
#include "runtime/supervision/start_attributes.h"
#include "runtime/testing/child.h"

namespace pyhost {
namespace {

constexpr absl::Duration kLong = absl::Seconds(20);

// Does what its script says instead of launching.
class ScriptedLauncher final : public Launcher {
 public:
  using Script = std::function<absl::StatusOr<pid_t>(const LaunchOptions&)>;
  explicit ScriptedLauncher(Script script) : script_(std::move(script)) {}
  absl::StatusOr<pid_t> Launch(const LaunchOptions& options) override { return script_(options); }

 private:
  Script script_;
};

// The test is the root host; the supervisor runs in a process of its own.
class SupervisorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    SegmentOptions options;
    options.limit = 16 << 20;
    segment_ = *Segment::Create(options);
    root_ = *hosts().CreateEmbryo({HostId(), static_cast<uint32_t>(HostFlag::kRoot), "root", Handle()});
    ASSERT_TRUE(hosts().Adopt(root_).ok());
    auto ends = *DatagramSocketPair();
    control_ = std::move(ends.first);
    supervisor_end_ = std::move(ends.second);
  }

  void StartSupervisor(ScriptedLauncher::Script script) {
    SessionTicket ticket;
    ticket.segment_fd = segment_->fd();
    ticket.control_fd = control_.get();
    ticket.root = root_;
    ticket.me = ticket.supervisor =
        *hosts().CreateEmbryo({root_, static_cast<uint32_t>(HostFlag::kSupervisor), "supervisor", Handle()});
    supervisor_ = std::make_unique<testing::Child>([this, ticket, script] {
      ScriptedLauncher launcher(script);
      auto supervisor = Supervisor::Create(ticket, std::move(supervisor_end_), &launcher);
      ASSERT_TRUE(supervisor.ok()) << supervisor.status();
      if (without_pidfds_) RefusePidfds();
      EXPECT_TRUE((*supervisor)->Run().ok());
    });
  }

  // A start by spawn, up to the supervisor; or only the question for its server.
  HostId SendStart(MessageType type = MessageType::kStart) {
    StartAttributes attributes;
    ServerSpec spec;
    spec.method = "spawn";
    spec.program = "/no/program";
    std::string bytes = StartPayload::EncodeHead(attributes.Encode(), spec.Encode(), 0);
    Handle payload = *segment_->objects().Create(ObjectKind::kMemory, bytes.size(), root_);
    memcpy(segment_->objects().Block(payload)->data(), bytes.data(), bytes.size());
    HostId child = *hosts().CreateEmbryo({root_, 0, "child", payload});
    EXPECT_TRUE(segment_->objects().Hold(payload, child).ok());
    Send({.type = type, .host = child.value(), .server = spec.Key({})});
    return child;
  }

  // A process that is a host, watched by the supervisor, and sleeps.
  std::unique_ptr<testing::Child> StartHost(HostId id) {
    auto child = std::make_unique<testing::Child>([this, id] {
      ASSERT_TRUE(hosts().Adopt(id).ok());
      for (;;) pause();
    });
    EXPECT_TRUE(hosts().WaitForPid(id, Soon()).ok());
    // Not by the child: a test that kills it at once would kill it before it is announced.
    Send({.type = MessageType::kWatch, .host = id.value()});
    return child;
  }

  // From now on pidfd_open fails in this process.
  static void RefusePidfds() {
    sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pidfd_open, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EMFILE),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    sock_fprog program = {static_cast<unsigned short>(std::size(code)), code};
    ASSERT_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    ASSERT_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
  }

  void Send(const ControlMessage& message) {
    EXPECT_TRUE(SendDatagram(control_.get(), AsBytes(message), {}, Soon()).ok());
  }
  std::optional<HostId> FindSupervisor() {
    for (const HostInfo& info : hosts().List()) {
      if (info.has(HostFlag::kSupervisor)) return info.id;
    }
    return std::nullopt;
  }
  HostTable& hosts() { return segment_->hosts(); }
  static Wait Soon() { return {Deadline::After(kLong), nullptr}; }

  std::unique_ptr<Segment> segment_;
  HostId root_;
  UniqueFd control_;
  UniqueFd supervisor_end_;
  bool without_pidfds_ = false;  // of the supervisor, once it is up
  std::unique_ptr<testing::Child> supervisor_;
};

TEST_F(SupervisorTest, ServerThatCannotBeLaunchedFailsTheStartWithItsErrno) {
  StartSupervisor([](const LaunchOptions&) { return ErrnoStatus(EAGAIN, "vfork"); });
  HostId child = SendStart();
  EXPECT_EQ(hosts().WaitForExit(child, Soon())->kind, ExitStatus::Kind::kNotStarted);
  EXPECT_EQ(hosts().Exit(child).value, EAGAIN);
  EXPECT_NE(hosts().Info(child)->running.find("start the fork server for spawn"), std::string::npos);
}

TEST_F(SupervisorTest, QuestionForAServerIsAnsweredWhenItHasAProcess) {
  StartSupervisor([](const LaunchOptions&) -> absl::StatusOr<pid_t> {
    pid_t pid = fork();
    if (pid == 0) pause();
    return pid;
  });
  HostId question = SendStart(MessageType::kWarm);
  EXPECT_EQ(*hosts().WaitForExit(question, Soon()), (ExitStatus{ExitStatus::Kind::kExited, 0}));
  pid_t server = 0;
  for (const HostInfo& info : hosts().List()) {
    if (info.has(HostFlag::kServer)) server = info.pid;
  }
  ASSERT_GT(server, 0);
  EXPECT_EQ(kill(server, SIGKILL), 0);
}

TEST_F(SupervisorTest, QuestionForAServerIsAnsweredWithWhyThereIsNone) {
  StartSupervisor([](const LaunchOptions&) { return ErrnoStatus(EAGAIN, "vfork"); });
  HostId question = SendStart(MessageType::kWarm);
  EXPECT_EQ(hosts().WaitForExit(question, Soon())->kind, ExitStatus::Kind::kNotStarted);
  EXPECT_NE(hosts().Info(question)->running.find("start the fork server for spawn"), std::string::npos);
}

TEST_F(SupervisorTest, ServerThatDiesThreeTimesFailsTheStartWithHowItDied) {
  StartSupervisor([](const LaunchOptions&) -> absl::StatusOr<pid_t> {
    pid_t pid = fork();
    if (pid == 0) _exit(9);
    return pid;
  });
  HostId child = SendStart();
  EXPECT_EQ(hosts().WaitForExit(child, Soon())->kind, ExitStatus::Kind::kNotStarted);
  EXPECT_NE(hosts().Info(child)->running.find("exited with code 9"), std::string::npos);
}

TEST_F(SupervisorTest, KilledHostHasItsSignalInTheRecordAndHoldsNothing) {
  StartSupervisor([](const LaunchOptions&) { return ErrnoStatus(EAGAIN, "vfork"); });
  Handle held = *segment_->objects().Create(ObjectKind::kMemory, 64, root_);
  HostId id = *hosts().CreateEmbryo({root_, 0, "host", Handle()});
  ASSERT_TRUE(segment_->objects().Hold(held, id).ok());
  auto host = StartHost(id);
  host->Signal(SIGKILL);
  EXPECT_EQ(hosts().WaitForExit(id, Soon())->value, SIGKILL);
  const Deadline deadline = Deadline::After(kLong);
  while (segment_->objects().IsHeld(held, id) && !deadline.Expired()) sched_yield();
  EXPECT_FALSE(segment_->objects().IsHeld(held, id));
}

TEST_F(SupervisorTest, HostThatCallsExecHoldsNothingAnyMoreWhileItsProcessGoesOn) {
  StartSupervisor([](const LaunchOptions&) { return ErrnoStatus(EAGAIN, "vfork"); });
  Handle held = *segment_->objects().Create(ObjectKind::kMemory, 64, root_);
  HostId id = *hosts().CreateEmbryo({root_, 0, "host", Handle()});
  ASSERT_TRUE(segment_->objects().Hold(held, id).ok());
  testing::Child program([&] {
    ASSERT_TRUE(hosts().Adopt(id).ok());
    int life[2];
    ASSERT_EQ(pipe2(life, O_CLOEXEC), 0);
    const ControlMessage watch = {.type = MessageType::kWatch, .host = id.value()};
    ASSERT_TRUE(SendDatagram(control_.get(), AsBytes(watch), std::span(&life[0], 1), Soon()).ok());
    execl("/bin/sleep", "sleep", "600", nullptr);
  });
  EXPECT_TRUE(hosts().WaitForRecovery(id, Soon()).ok());
  EXPECT_FALSE(segment_->objects().IsHeld(held, id));
  EXPECT_EQ(hosts().Exit(id).kind, ExitStatus::Kind::kBecameProgram);
  EXPECT_EQ(program.Kill(), testing::Killed(SIGKILL));
}

TEST_F(SupervisorTest, HostWithoutAPidfdIsNotTakenForDeadAndItsDeathIsSeen) {
  without_pidfds_ = true;
  StartSupervisor([](const LaunchOptions&) { return ErrnoStatus(EAGAIN, "vfork"); });
  HostId id = *hosts().CreateEmbryo({root_, 0, "host", Handle()});
  auto host = StartHost(id);
  // Longer than the wait for the exit word of one that is gone.
  EXPECT_FALSE(hosts().WaitForExit(id, {Deadline::After(absl::Milliseconds(700)), nullptr}).ok());
  host->Signal(SIGKILL);
  EXPECT_TRUE(hosts().WaitForExit(id, Soon()).ok());
}

TEST_F(SupervisorTest, DaemonOfADeadHostIsEnded) {
  StartSupervisor([](const LaunchOptions&) { return ErrnoStatus(EAGAIN, "vfork"); });
  HostId parent = *hosts().CreateEmbryo({root_, 0, "parent", Handle()});
  HostId daemon = *hosts().CreateEmbryo({parent, static_cast<uint32_t>(HostFlag::kDaemon), "daemon", Handle()});
  hosts().Watch(daemon, root_);
  auto daemon_process = StartHost(daemon);
  auto parent_process = StartHost(parent);
  parent_process->Signal(SIGKILL);
  EXPECT_EQ(hosts().WaitForExit(daemon, Soon())->value, SIGTERM);
}

TEST_F(SupervisorTest, NoMessageEndsAHostThatLives) {
  StartSupervisor([](const LaunchOptions&) { return ErrnoStatus(EAGAIN, "vfork"); });
  const HostId other = *hosts().CreateEmbryo({root_, 0, "other", Handle()});
  auto child = StartHost(other);
  const HostId supervisor = *FindSupervisor();
  for (const HostId host : {root_, other, supervisor, HostId(1023, 1), HostId()}) {
    for (const MessageType type : {MessageType::kStart, MessageType::kWarm, MessageType::kForked, MessageType::kFailed,
                                   MessageType::kStop}) {
      Send({.type = type, .host = host.value(), .server = 1});
    }
  }
  // Answered after all of these.
  EXPECT_EQ(hosts().WaitForExit(SendStart(), Soon())->kind, ExitStatus::Kind::kNotStarted);
  for (const HostId host : {root_, other, supervisor}) EXPECT_TRUE(hosts().IsRunning(host)) << host.ToString();
  child->Kill();
}

TEST_F(SupervisorTest, SocketThatWasShutDownCostsNoProcessorTime) {
  StartSupervisor([](const LaunchOptions&) { return ErrnoStatus(EAGAIN, "vfork"); });
  EXPECT_EQ(hosts().WaitForExit(SendStart(), Soon())->kind, ExitStatus::Kind::kNotStarted);
  ASSERT_EQ(shutdown(control_.get(), SHUT_RDWR), 0);
  const HostId other = *hosts().CreateEmbryo({root_, 0, "other", Handle()});
  clockid_t clock;
  ASSERT_EQ(clock_getcpuclockid(supervisor_->pid(), &clock), 0);
  const auto used = [clock] {
    timespec time = {};
    clock_gettime(clock, &time);
    return absl::DurationFromTimespec(time);
  };
  const absl::Duration before = used();
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      hosts().WaitForExit(other, {Deadline::After(absl::Milliseconds(500)), nullptr}).status()));
  EXPECT_LT(used() - before, absl::Milliseconds(250));
}

TEST_F(SupervisorTest, UnknownAndDamagedDatagramsAreIgnored) {
  StartSupervisor([](const LaunchOptions&) { return ErrnoStatus(EAGAIN, "vfork"); });
  const std::byte junk[200] = {};
  EXPECT_TRUE(SendDatagram(control_.get(), junk, {}, Soon()).ok());
  EXPECT_TRUE(SendDatagram(control_.get(), std::span(junk, 3), {}, Soon()).ok());
  Send({.type = static_cast<MessageType>(99), .host = 0xffffffff});
  Send({.type = MessageType::kWatch, .host = 0xffffffff});
  Send({.type = MessageType::kStop, .host = 0xffffffff});
  HostId child = SendStart();
  EXPECT_EQ(hosts().WaitForExit(child, Soon())->value, EAGAIN);
}

}  // namespace
}  // namespace pyhost
