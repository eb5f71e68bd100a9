// A task that pages itself (R37): a large table whose pages are computed on access and evicted first in, first out
// when its few frames are needed for others.
#include <physmem.h>

PM_PROGRAM("Pages itself: a table of PAGES pages in FRAMES frames. Arguments: PAGES FRAMES.");

#define TABLE ((uint64_t *)0x200000000000ull)
#define WORDS_PER_PAGE (PM_PAGE_SIZE / sizeof(uint64_t))

static struct {
  pm_container_t container;
  uint32_t frames;
  uint32_t next;      // the frame to use next, round robin
  uint64_t *page_of;  // the page in each frame; UINT64_MAX: none
  uint64_t faults, evictions;
} pager;

static uint64_t value_at(uint64_t index) { return index * index + 1; }

static pm_error_t show(uint32_t frame, uint64_t page, uint32_t rights) {
  return pm_container_map(pager.container, frame, 1, TABLE + page * WORDS_PER_PAGE, rights);
}

static int handle(const struct pm_fault *fault) {
  uint64_t page = (fault->address - (uint64_t)TABLE) / PM_PAGE_SIZE;
  uint32_t frame = pager.next;
  pager.next = (pager.next + 1) % pager.frames;
  pager.faults++;
  if (pager.page_of[frame] != UINT64_MAX) {
    if (pm_unmap(TABLE + pager.page_of[frame] * WORDS_PER_PAGE, 1)) return 1;
    pager.evictions++;
  }
  if (show(frame, page, PM_MAP_READ | PM_MAP_WRITE)) return 1;
  for (uint64_t i = 0; i < WORDS_PER_PAGE; i++)
    TABLE[page * WORDS_PER_PAGE + i] = value_at(page * WORDS_PER_PAGE + i);
  pager.page_of[frame] = page;
  return show(frame, page, PM_MAP_READ);
}

static pm_error_t start(uint32_t frames) {
  pager.frames = frames;
  pager.page_of = malloc(frames * sizeof *pager.page_of);
  if (!pager.page_of) return PM_ENOMEM;
  memset(pager.page_of, 0xff, frames * sizeof *pager.page_of);
  pm_error_t error = pm_container_create(&pager.container);
  if (!error) error = pm_container_allocate(pager.container, 0, &frames, 0);
  return error ? error : pm_on_fault(handle);
}

int main(int argc, char **argv) {
  uint64_t pages = argc > 1 ? strtoul(argv[1], NULL, 0) : 256, state = 1, wrong = 0;
  uint32_t frames = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 0) : 16;
  const int lookups = 2000;
  pm_error_t error = pages && frames ? start(frames) : PM_EINVAL;
  if (error) {
    printf("selfpager: %s\n", pm_strerror(error));
    return 1;
  }
  for (int i = 0; i < lookups; i++) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    // Nine of ten lookups go to a tenth of the table.
    uint64_t range = (state >> 60) ? pages * WORDS_PER_PAGE / 10 + 1 : pages * WORDS_PER_PAGE;
    uint64_t index = (state >> 20) % range;
    wrong += TABLE[index] != value_at(index);
  }
  printf("%d lookups in %lu pages with %u frames: %lu faults, %lu evictions, %lu wrong\n", lookups, pages, frames,
         pager.faults, pager.evictions, wrong);
  return wrong != 0;
}
