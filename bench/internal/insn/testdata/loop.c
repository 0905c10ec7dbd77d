/* Executes 4 * LOOPS instructions, and some twenty more. It is linked without libc. */
void _start(void)
{
	__asm__ volatile(
		"mov %0, %%rcx\n"
		"1: test $1, %%cl\n"
		"jz 2f\n" /* taken every other time: two blocks, then three */
		"2: dec %%rcx\n"
		"jnz 1b\n"
		"mov $60, %%eax\n"
		"xor %%edi, %%edi\n"
		"syscall\n"
		: : "r"((unsigned long)LOOPS) : "rcx", "rax", "rdi");
}
