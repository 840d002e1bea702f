// RegisterObjectKinds: tells the object table about every kind of object that a session may hold.
//
// Every process that attaches a segment calls it first: any of them may come to destroy or recover any object.
// Idempotent, thread-safe.

#ifndef PYHOST_RUNTIME_BROKER_OBJECT_KINDS_H_
#define PYHOST_RUNTIME_BROKER_OBJECT_KINDS_H_

namespace pyhost {

void RegisterObjectKinds();

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_BROKER_OBJECT_KINDS_H_
