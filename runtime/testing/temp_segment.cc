#include "runtime/testing/temp_segment.h"

#include "gtest/gtest.h"

namespace pyhost::testing {
namespace {

// A test without its segment has nothing to say.
template <typename T>
T Must(absl::StatusOr<T> value) {
  if (!value.ok()) {
    fprintf(stderr, "test segment: %s\n", value.status().ToString().c_str());
    abort();
  }
  return *std::move(value);
}

}  // namespace

TempSegment::TempSegment(const SegmentOptions& options) : segment_(Must(Segment::Create(options))) {
  me_ = Must(hosts().CreateEmbryo({.flags = static_cast<uint32_t>(HostFlag::kRoot), .name = "test"}));
  EXPECT_TRUE(hosts().Adopt(me_).ok());
}

HostId TempSegment::NewHost(std::string_view name) {
  return Must(hosts().CreateEmbryo({.parent = me_, .name = name}));
}

std::unique_ptr<Child> TempSegment::StartHost(const std::function<void(HostId)>& body, HostId* id) {
  *id = NewHost();
  objects().DuplicateHolds(me_, *id);
  auto child = std::make_unique<Child>([&, self = *id] {
    ASSERT_TRUE(hosts().Adopt(self).ok());
    body(self);
  });
  EXPECT_TRUE(hosts().SetPid(*id, child->pid()).ok());
  return child;
}

void TempSegment::Bury(HostId id, const ChildEnd& end) {
  const auto kind = end.killed ? ExitStatus::Kind::kSignaled : ExitStatus::Kind::kExited;
  hosts().SetExit(id, {kind, end.value}, true);
  if (!hosts().BeginRecovery(id, me_)) return;
  objects().Recover(id, me_);
  const absl::Status status = objects().RecountTransits(me_);
  EXPECT_TRUE(status.ok()) << status;
  hosts().FinishRecovery(id);
  hosts().Unwatch(id, me_);
}

ChildEnd TempSegment::RunHost(const std::function<void(HostId)>& body) {
  HostId id;
  const ChildEnd end = StartHost(body, &id)->Reap();
  Bury(id, end);
  return end;
}

}  // namespace pyhost::testing
