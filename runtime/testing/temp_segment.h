// TempSegment: a small segment with one host for tests, and what a test does with hosts of its own.

#ifndef PYHOST_RUNTIME_TESTING_TEMP_SEGMENT_H_
#define PYHOST_RUNTIME_TESTING_TEMP_SEGMENT_H_

#include <functional>
#include <memory>
#include <string_view>

#include "runtime/base/ids.h"
#include "runtime/segment/host_table.h"
#include "runtime/segment/object_table.h"
#include "runtime/segment/segment.h"
#include "runtime/testing/child.h"

namespace pyhost::testing {

class TempSegment {
 public:
  explicit TempSegment(const SegmentOptions& options = {.limit = 64 << 20, .max_hosts = 128, .max_objects = 4096});

  Segment& operator*() { return *segment_; }
  Segment* operator->() { return segment_.get(); }
  HostTable& hosts() { return segment_->hosts(); }
  ObjectTable& objects() { return segment_->objects(); }
  // The test process itself: an adopted host.
  HostId me() const { return me_; }

  // Another host, an embryo without a process yet.
  HostId NewHost(std::string_view name = "child");
  // Forks a child that adopts a new host (holding what `me` holds, as after fork) and runs `body` in it.
  // `*id` names it.
  std::unique_ptr<Child> StartHost(const std::function<void(HostId self)>& body, HostId* id);
  // The reaper's part: says how the host ended, recovers what it held, recounts transits, frees its record.
  void Bury(HostId id, const ChildEnd& end);
  // Starts, waits and buries.
  ChildEnd RunHost(const std::function<void(HostId self)>& body);

 private:
  std::unique_ptr<Segment> segment_;
  HostId me_;
};

}  // namespace pyhost::testing

#endif  // PYHOST_RUNTIME_TESTING_TEMP_SEGMENT_H_
