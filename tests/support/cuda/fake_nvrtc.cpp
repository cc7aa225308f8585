/*
 * Stands in for NVRTC (libnvrtc): the calls that the backend makes. What it "compiles" is the options and the source, one after
 * another; a line that begins with #error makes it fail as the real one does, with the line in its log.
 *
 * FAKE_MAJOR at compile time is the version that it claims to have.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <string>

#ifndef FAKE_MAJOR
#define FAKE_MAJOR 13
#endif

#define API extern "C" __attribute__((visibility("default"))) int
enum { SUCCESS = 0, INVALID_INPUT = 3, INVALID_PROGRAM = 4, INVALID_OPTION = 5, COMPILATION = 6 };

struct program {
  std::string name, source, log, cubin;
};

extern "C" __attribute__((visibility("default"))) const char *nvrtcGetErrorString(int code) {
  return code == SUCCESS ? "NVRTC_SUCCESS" : code == INVALID_OPTION ? "NVRTC_ERROR_INVALID_OPTION" : "NVRTC_ERROR";
}
API nvrtcVersion(int *major, int *minor) {
  *major = FAKE_MAJOR;
  *minor = 7;
  return SUCCESS;
}
API nvrtcCreateProgram(program **made, const char *source, const char *name, int headers, const char *const *, const char *const *) {
  if (headers != 0) return INVALID_INPUT;
  *made = new program{name, source, "", ""};
  return SUCCESS;
}
API nvrtcDestroyProgram(program **made) {
  if (!*made) return INVALID_PROGRAM;
  delete *made;
  *made = nullptr;
  return SUCCESS;
}
API nvrtcCompileProgram(program *at, int count, const char *const *options) {
  for (int i = 0; i < count; ++i) {
    if (strcmp(options[i], "-arch=sm_1") == 0) return INVALID_OPTION;
    at->cubin += options[i];
    at->cubin += '\n';
  }
  const size_t error = at->source.find("#error ");
  if (error != std::string::npos) {
    at->log = at->name + "(1): error: #error directive: " + at->source.substr(error + 7);
    return COMPILATION;
  }
  at->cubin += at->source;
  return SUCCESS;
}
/* Of texts, sizes count the zero at the end. */
API nvrtcGetProgramLogSize(program *at, size_t *size) {
  *size = at->log.size() + 1;
  return SUCCESS;
}
API nvrtcGetProgramLog(program *at, char *log) {
  memcpy(log, at->log.c_str(), at->log.size() + 1);
  return SUCCESS;
}
API nvrtcGetCUBINSize(program *at, size_t *size) {
  *size = at->cubin.size();
  return SUCCESS;
}
API nvrtcGetCUBIN(program *at, char *cubin) {
  memcpy(cubin, at->cubin.data(), at->cubin.size());
  return SUCCESS;
}
