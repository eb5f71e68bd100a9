// The names of the errors.
#include <physmem.h>

#define NAME(error) \
  case error: return #error

const char *pm_strerror(pm_error_t error) {
  switch ((enum pm_error)error) {
    NAME(PM_OK);
    NAME(PM_EPERM);
    NAME(PM_ENOENT);
    NAME(PM_EEXIST);
    NAME(PM_ENOMEM);
    NAME(PM_ENOEXIST);
    NAME(PM_EINVAL);
    NAME(PM_EBUSY);
    NAME(PM_ETIMEDOUT);
    NAME(PM_EIO);
    NAME(PM_ENOSPC);
    NAME(PM_EFAULT);
    NAME(PM_ECANCELED);
    NAME(PM_EAGAIN);
  }
  return "unknown error";
}
