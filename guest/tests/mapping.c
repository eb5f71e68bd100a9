// A task's view through its mappings (R16, R18, R25, R27).
#include "test.h"

PM_TEST(lazy, 0, 1, "R16: a lazily mapped frame is allocated at the first access, not before") {
  map_fresh(REGION, 4);
  CHECK_EQ(mapping_at(REGION).physical, 0);
  CHECK_EQ(mapping_at(REGION).rights, 0);
  *REGION = 7;
  CHECK_EQ(*REGION, 7);
  CHECK(mapping_at(REGION).physical != 0);
  CHECK_EQ(rights_at(REGION), PM_MAP_READ | PM_MAP_WRITE);
}

PM_TEST(eager, 0, 1, "R25: without the lazy flag the pages are mapped before the first access") {
  pm_container_t container = make_container(40);
  CHECK_OK(pm_container_map(container, 0, 40, REGION, PM_MAP_READ | PM_MAP_WRITE));
  for (int i = 0; i < 40; i++) {
    CHECK(mapping_at(PAGE(REGION, i)).physical != 0);
    CHECK_EQ(rights_at(PAGE(REGION, i)), PM_MAP_READ | PM_MAP_WRITE);
  }
  fill_pages(REGION, 40, 1);
  check_pages(REGION, 40, 1);
}

PM_TEST(first_access_reads, 0, 1, "R18: a page whose first access is a read is zero, and can be written then") {
  map_fresh(REGION, 100);
  CHECK(is_zero(REGION, 100 * PM_PAGE_SIZE));
  fill_pages(REGION, 100, 2);
  check_pages(REGION, 100, 2);
}

PM_TEST(zero_again, 0, 1, "R18: frames that the task used, freed and allocates again are zero") {
  for (uint64_t round = 0; round < 8; round++) {
    pm_container_t container = map_fresh(REGION, 200);
    CHECK(is_zero(REGION, 200 * PM_PAGE_SIZE));
    fill_pages(REGION, 200, round);
    check_pages(REGION, 200, round);
    CHECK_OK(pm_container_destroy(container));
  }
}

PM_TEST(squashed_is_zero, 0, 1, "R18: SQUASH gives a fresh, zero frame under the existing mapping") {
  pm_container_t container = map_fresh(REGION, 8);
  fill_pages(REGION, 8, 3);
  uint32_t count = 4;
  CHECK_OK(pm_container_allocate(container, 2, &count, PM_ALLOC_SQUASH));
  CHECK_OK(pm_container_map(container, 2, 4, PAGE(REGION, 2), LAZY_READ_WRITE));
  check_pages(REGION, 2, 3);
  CHECK(is_zero(PAGE(REGION, 2), 4 * PM_PAGE_SIZE));
  check_pages(PAGE(REGION, 6), 2, 3);
}

PM_TEST(two_addresses, 0, 1, "R25: one frame at two addresses: a write at one is visible at the other") {
  pm_container_t container = map_fresh(REGION, 16);
  CHECK_OK(pm_container_map(container, 0, 16, REGION_2, LAZY_READ_WRITE));
  for (int i = 0; i < 16; i++) {
    *PAGE(REGION, i) = (char)(i + 1);
    CHECK_EQ(*PAGE(REGION_2, i), i + 1);
    PAGE(REGION_2, i)[4095] = (char)(i + 2);
    CHECK_EQ(PAGE(REGION, i)[4095], i + 2);
    CHECK_SAME_FRAME(mapping_at(PAGE(REGION, i)).physical, mapping_at(PAGE(REGION_2, i)).physical);
  }
}

PM_TEST(same_frame_many_times, 0, 1, "R25: one frame at 64 addresses, read-only at half of them") {
  pm_container_t container = make_container(1);
  for (int i = 0; i < 64; i++) {
    uint32_t flags = i % 2 ? PM_MAP_READ | PM_MAP_LAZY : LAZY_READ_WRITE;
    CHECK_OK(pm_container_map(container, 0, 1, PAGE(REGION, i), flags));
  }
  for (int i = 0; i < 64; i += 2) {
    *PAGE(REGION, i) = (char)i;
    for (int j = 0; j < 64; j++) CHECK_EQ(*PAGE(REGION, j), i);
  }
}

PM_TEST(replaces, 0, 1, "R25: a mapping replaces what was mapped there, whole or in part") {
  map_fresh(REGION, 10);
  fill_pages(REGION, 10, 4);
  pm_container_t other = make_container(4);
  CHECK_OK(pm_container_map(other, 0, 4, PAGE(REGION, 3), LAZY_READ_WRITE));
  check_pages(REGION, 3, 4);
  CHECK(is_zero(PAGE(REGION, 3), 4 * PM_PAGE_SIZE));
  check_pages(PAGE(REGION, 7), 3, 4);
  CHECK_EQ(mapping_at(PAGE(REGION, 4)).container, other);
  CHECK_EQ(mapping_at(PAGE(REGION, 4)).frame, 1);
  CHECK_EQ(mapping_at(PAGE(REGION, 7)).frame, 7);
}

PM_TEST(remap_keeps_data, 0, 1, "R25: data stays in the container when it is unmapped and mapped elsewhere") {
  pm_container_t container = map_fresh(REGION, 32);
  for (int i = 0; i < 32; i++) *(uint64_t *)PAGE(REGION, i) = 1000u + (unsigned)i;
  CHECK_OK(pm_unmap(REGION, 32));
  // In reverse order this time.
  for (uint32_t i = 0; i < 32; i++)
    CHECK_OK(pm_container_map(container, i, 1, PAGE(REGION_2, 31 - i), LAZY_READ_WRITE));
  for (int i = 0; i < 32; i++) CHECK_EQ(*(uint64_t *)PAGE(REGION_2, 31 - i), 1000 + i);
}

PM_TEST(write_protect_and_back, 0, 1, "R25: the same frame mapped read-only, then read-write again") {
  pm_container_t container = map_fresh(REGION, 4);
  fill_pages(REGION, 4, 5);
  CHECK_OK(pm_container_map(container, 0, 4, REGION, PM_MAP_READ | PM_MAP_LAZY));
  check_pages(REGION, 4, 5);
  CHECK(!(mapping_at(REGION).rights & PM_MAP_WRITE));
  CHECK_OK(pm_container_map(container, 0, 4, REGION, LAZY_READ_WRITE));
  check_pages(REGION, 4, 5);
  fill_pages(REGION, 4, 6);
  check_pages(REGION, 4, 6);
}

PM_TEST(force_write, 0, 1, "R26: PM_MAP_FORCE_WRITE implies write") {
  pm_container_t container = make_container(2);
  CHECK_OK(pm_container_map(container, 0, 2, REGION, PM_MAP_FORCE_WRITE));
  CHECK_EQ(rights_at(REGION), PM_MAP_READ | PM_MAP_WRITE);
  fill_pages(REGION, 2, 7);
  check_pages(REGION, 2, 7);
}

PM_TEST(sparse, 0, 1, "R25: single pages all over the address space, first and last page included") {
  uint64_t state = 99;
  static char *pages[200];
  pm_container_t container = make_container(200);
  pages[0] = (char *)PM_USER_START;
  pages[1] = (char *)(PM_USER_END - PM_PAGE_SIZE);
  for (uint32_t i = 2; i < 200; i++) {
    // Above the image and below the heap and the stack.
    uint64_t page = next_random(&state) % 0x7ffd00000 + 0x10000;
    pages[i] = (char *)(page * PM_PAGE_SIZE);
  }
  for (uint32_t i = 0; i < 200; i++) CHECK_OK(pm_container_map(container, i, 1, pages[i], LAZY_READ_WRITE));
  for (uint32_t i = 0; i < 200; i++) *(uint64_t *)pages[i] = i + 1;
  for (uint32_t i = 0; i < 200; i++) CHECK_EQ(*(uint64_t *)pages[i], i + 1);
}

PM_TEST(table_borders, 0, 1, "R25: mappings across the boundaries of page tables of every level") {
  const uint64_t borders[] = {0x200000, 0x40000000, 0x8000000000};
  pm_container_t container = make_container(8 * 3);
  for (uint32_t i = 0; i < 3; i++) {
    char *start = REGION + borders[i] - 4 * PM_PAGE_SIZE;
    CHECK_OK(pm_container_map(container, i * 8, 8, start, LAZY_READ_WRITE));
    fill_pages(start, 8, i);
  }
  for (uint32_t i = 0; i < 3; i++) check_pages(REGION + borders[i] - 4 * PM_PAGE_SIZE, 8, i);
}

PM_TEST(information, 0, 1, "R27: pm_mapping reports container, frame, rights and requested flags") {
  pm_container_t container = make_container(10);
  CHECK_OK(pm_container_map(container, 5, 5, REGION, PM_MAP_READ | PM_MAP_LAZY));
  struct pm_mapping mapping = mapping_at(PAGE(REGION, 2) + 123);
  CHECK_EQ(mapping.container, container);
  CHECK_EQ(mapping.frame, 7);
  CHECK_EQ(mapping.requested, PM_MAP_READ | PM_MAP_LAZY);
  CHECK_EQ(mapping.physical, 0);
  CHECK_EQ(*(volatile char *)PAGE(REGION, 2), 0);
  mapping = mapping_at(PAGE(REGION, 2) + 123);
  CHECK_EQ(rights_at(PAGE(REGION, 2) + 123), PM_MAP_READ);
  CHECK(mapping.physical != 0);
  CHECK_EQ(mapping.physical % PM_PAGE_SIZE, 0);
}

PM_TEST(information_on_image, 0, 1, "R27: pm_mapping on the task's own text, data and stack") {
  static int data = 1;
  int local = 0;
  data++, local++;
  struct pm_mapping text = mapping_at((const void *)&test_information_on_image);
  CHECK_EQ(text.container, PM_CAP_CONTAINER);
  CHECK_EQ(rights_at((const void *)&test_information_on_image), PM_MAP_READ | PM_MAP_EXECUTE);
  CHECK_EQ(mapping_at(&data).container, PM_CAP_CONTAINER);
  CHECK_EQ(rights_at(&data), PM_MAP_READ | PM_MAP_WRITE);
  CHECK_EQ(rights_at(&local), PM_MAP_READ | PM_MAP_WRITE);
}

PM_TEST(information_errors, 0, 1, "R27: pm_mapping of unmapped addresses, and out of range") {
  struct pm_mapping mapping;
  CHECK_ERROR(pm_mapping(REGION, &mapping), PM_ENOENT);
  CHECK_ERROR(pm_mapping(NULL, &mapping), PM_ENOENT);
  CHECK_ERROR(pm_mapping((void *)PM_USER_END, &mapping), PM_ENOENT);
  CHECK_ERROR(pm_mapping((void *)0xffff800000000000u, &mapping), PM_ENOENT);
  CHECK_ERROR(pm_mapping((void *)UINT64_MAX, &mapping), PM_ENOENT);
  CHECK_ERROR(pm_mapping((void *)(PM_STACK_TOP - (PM_STACK_PAGES + 1) * PM_PAGE_SIZE), &mapping), PM_ENOENT);
  map_fresh(REGION, 1);
  CHECK_OK(pm_mapping(REGION, &mapping));
  CHECK_ERROR(pm_mapping(PAGE(REGION, 1), &mapping), PM_ENOENT);
  CHECK_OK(pm_unmap(REGION, 1));
  CHECK_ERROR(pm_mapping(REGION, &mapping), PM_ENOENT);
}
