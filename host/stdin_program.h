// A program that is read from standard input, kept so that child processes can import it.
//
// `pyhost - < file` leaves the file as descriptor 0, where multiprocessing.main_module reads it again.  A pipe
// can be read only once; so its text is moved into a file in memory, which takes descriptor 0's place before Python
// reads the program.  Nothing else changes: Python reads a program from a pipe to its end before it runs any of it.

#ifndef PYHOST_HOST_STDIN_PROGRAM_H_
#define PYHOST_HOST_STDIN_PROGRAM_H_

namespace pyhost::host {

// Call between a successful StartInterpreter and RunMainJob.  Does nothing unless the program comes from a pipe.
// Where the text cannot be kept, the pipe stays and children cannot import the program.
void KeepProgramFromPipe();

}  // namespace pyhost::host

#endif  // PYHOST_HOST_STDIN_PROGRAM_H_
