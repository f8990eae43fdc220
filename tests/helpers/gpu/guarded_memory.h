// A kernel's tensors in memory of their own, behind and before which there is none: what a card's memory would forgive is seen.
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

enum { TOUCHED = 4, OVERWRITTEN = 5, UNDEFINED = 6 };  // codes that a run ends with
static jmp_buf guard_back;
static unsigned char* volatile guard_address;

struct Guarded {
    unsigned char *own, *pages, *held;
    size_t bytes, size;  // of the tensor, and of pages that may be touched
    bool is_again;       // of a tensor that an argument before is, too
    // It ends where the pages end, but for what keeps its address the same modulo 16, on which kernels decide how to load.
    void place(void* tensor, size_t count) {
        const size_t page = (size_t)sysconf(_SC_PAGESIZE), beyond = (size_t)(-((uintptr_t)tensor + count)) % 16;
        own = (unsigned char*)tensor, bytes = count, size = (count + beyond + page - 1) / page * page;
        pages = (unsigned char*)mmap(nullptr, size + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (pages == MAP_FAILED) { perror("mmap"); abort(); }
        pages += page;
        held = pages + size - beyond - bytes;
        if (size) mprotect(pages, size, PROT_READ | PROT_WRITE);
        memset(pages, 0xff, size);
        if (bytes) memcpy(held, own, bytes);
    }
    bool is_whole() const {
        for (unsigned char* at = pages; at < pages + size; at++)
            if ((at < held || at >= held + bytes) && *at != 0xff) return false;
        return true;
    }
    void give_back() const {
        const size_t page = (size_t)sysconf(_SC_PAGESIZE);
        if (bytes && memcmp(own, held, bytes)) memcpy(own, held, bytes);  // of two that overlap, the other may be the one written
        munmap(pages - page, size + 2 * page);
    }
};

static void guard_caught(int, siginfo_t* about, void*) {
    guard_address = (unsigned char*)about->si_addr;
    _longjmp(guard_back, about->si_signo == SIGILL ? UNDEFINED : TOUCHED);
}

// Runs `call` with each argument that is a tensor, of so many bytes (-1: it is none), in memory of its own.
template <class Call> int guarded(void** arguments, const long* bytes, int count, Call call) {
    Guarded* held = (Guarded*)calloc((size_t)count + 1, sizeof(Guarded));
    for (int i = 0; i < count; i++)
        if (bytes[i] >= 0) {
            for (int j = 0; j < i && !held[i].is_again; j++)  // what is read and written as two arguments is one memory on a card
                if (bytes[i] && bytes[j] == bytes[i] && held[j].own == *(unsigned char**)arguments[i]) {
                    held[i] = held[j];
                    held[i].is_again = true;
                }
            if (!held[i].is_again) held[i].place(*(void**)arguments[i], (size_t)bytes[i]);
            *(void**)arguments[i] = held[i].held;
        }
    struct sigaction action = {}, before[3];
    const int signals[3] = {SIGSEGV, SIGBUS, SIGILL};
    action.sa_sigaction = guard_caught;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    for (int i = 0; i < 3; i++) sigaction(signals[i], &action, &before[i]);
    volatile int code = _setjmp(guard_back);
    if (!code) code = call();
    for (int i = 0; i < 3; i++) sigaction(signals[i], &before[i], nullptr);
    for (int i = 0; i < count; i++) {
        if (bytes[i] < 0 || held[i].is_again) continue;
        const long off = guard_address - held[i].held;
        if (code == TOUCHED && off > -4096 && off < bytes[i] + 4096) fprintf(stderr, "argument %d, of %ld bytes, touched at %ld\n", i, bytes[i], off);
        if (!code && !held[i].is_whole()) { code = OVERWRITTEN; fprintf(stderr, "memory beside argument %d is overwritten\n", i); }
        held[i].give_back();
    }
    free(held);
    return code;
}
