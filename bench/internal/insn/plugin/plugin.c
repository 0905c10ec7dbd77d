/*
 * A plugin of QEMU's emulator that counts the instructions which a guest
 * executes: each block of translated code adds its number of instructions to
 * the counter of the vCPU that enters it. The counters are in a file that
 * others map:
 *
 *     -plugin PATH,counters=FILE
 *
 * Distributions ship no header for plugins. What follows of QEMU's interface is
 * that part of include/qemu/qemu-plugin.h whose shape has stayed the same since
 * its first version.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef uint64_t qemu_plugin_id_t;

typedef struct {
	const char *target_name;
	struct { int min, cur; } version;
	bool system_emulation;
	struct { int smp_vcpus, max_vcpus; } system;
} qemu_info_t;

struct qemu_plugin_tb;

enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };

extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
	void (*cb)(qemu_plugin_id_t id, struct qemu_plugin_tb *tb));
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb,
	void (*cb)(unsigned int vcpu, void *data), enum qemu_plugin_cb_flags flags, void *data);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);

extern void qemu_plugin_scoreboard_new(void) __attribute__((weak)); /* QEMU has it since version 9 */

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

/* QEMU 9 refuses what says 1; what is used here is the same in both. */
__attribute__((constructor)) static void choose_version(void)
{
	if (qemu_plugin_scoreboard_new)
		qemu_plugin_version = 2;
}

/* CPUS and the size of a counter are those of counter.go: a cache line each. */
#define CPUS 64

static volatile struct { uint64_t n, rest[7]; } *counters;

static void block_begins(unsigned int vcpu, void *insns)
{
	counters[vcpu].n += (uintptr_t)insns; /* only this vCPU's thread writes it */
}

static void block_translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	(void)id;
	qemu_plugin_register_vcpu_tb_exec_cb(tb, block_begins, QEMU_PLUGIN_CB_NO_REGS,
		(void *)(uintptr_t)qemu_plugin_tb_n_insns(tb));
}

static bool map_counters(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return false;
	void *p = mmap(NULL, CPUS * sizeof(*counters), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (p == MAP_FAILED)
		return false;
	counters = p;
	return true;
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info,
	int argc, char **argv)
{
	static const char option[] = "counters=";
	if (argc != 1 || strncmp(argv[0], option, sizeof(option) - 1) != 0) {
		fprintf(stderr, "insn plugin: want one argument, counters=FILE\n");
		return -1;
	}
	if (!info->system_emulation || info->system.max_vcpus > CPUS) {
		fprintf(stderr, "insn plugin: a machine of at most %d vCPUs can be counted\n", CPUS);
		return -1;
	}
	if (!map_counters(argv[0] + sizeof(option) - 1)) {
		perror("insn plugin: map the file of counters");
		return -1;
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, block_translated);
	return 0;
}
