/* What gcc's unwinder expects of glibc and musl lacks: where the frame table of a program counter
 * is. In a static executable there is one table, named by its headers.
 * Linked into the static command only; an agent aborts on a panic and unwinds nothing. */
#include <elf.h>
#include <pthread.h>
#include <stddef.h>

/* The unwinder names these weakly, and a weak name takes nothing out of a static library. */
__attribute__((used)) static const void *const needed[] = {
    pthread_once,        pthread_key_create, pthread_getspecific,
    pthread_setspecific, pthread_mutex_lock, pthread_mutex_unlock,
};

struct found {
    unsigned long long flags;
    void *map_start, *map_end, *link_map, *eh_frame;
    unsigned long long reserved[7];
};

extern const Elf64_Ehdr __ehdr_start __attribute__((visibility("hidden")));

int _dl_find_object(void *pc, struct found *found) {
    const char *base = (const char *)&__ehdr_start;
    const Elf64_Phdr *header = (const Elf64_Phdr *)(base + __ehdr_start.e_phoff);
    const Elf64_Phdr *end = header + __ehdr_start.e_phnum;
    char *low = NULL, *high = NULL, *table = NULL;
    for (; header < end; header++) {
        char *start = (char *)header->p_vaddr;
        if (header->p_type == PT_GNU_EH_FRAME)
            table = start;
        if (header->p_type == PT_LOAD) {
            if (low == NULL || start < low)
                low = start;
            if (high < start + header->p_memsz)
                high = start + header->p_memsz;
        }
    }
    if (table == NULL || (char *)pc < low || high <= (char *)pc)
        return -1;
    *found = (struct found){ .map_start = low, .map_end = high, .eh_frame = table };
    return 0;
}
