/* Starts a program on an emulated Cortex-M4 (QEMU's mps2-an386), with input, output and exit through semihosting. Its
 * only argument is WEIGHTS, if there is one. */
#include <stdlib.h>

extern int main(int count, char **arguments);
extern char stack_top[];
extern void initialise_monitor_handles(void);

static void reset(void) {
    *(volatile unsigned *)0xE000ED88 |= 0xFu << 20; /* CPACR: the floating-point unit. */
    __asm__ volatile("dsb\n isb");
    initialise_monitor_handles();
    static char name[] = "program", weights[] = WEIGHTS, *arguments[] = {name, weights, 0};
    exit(main(sizeof weights > 1 ? 2 : 1, arguments));
}

static void fault(void) { _Exit(99); }

__attribute__((section(".vectors"), used)) static void *const vectors[16] = {
    stack_top, reset, fault, fault, fault, fault, fault};

void _init(void) {}
void _fini(void) {}
