/* A plugin of QEMU's user mode: at each write of the guest to standard output, a line with the instructions that it has run
   so far. QEMU's plugin interface 1 (QEMU 6.0 to 8.2) is declared here: Debian ships no header of it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t plugin_id;
struct block;
typedef void (*on_block)(plugin_id, struct block *);
typedef void (*on_call)(plugin_id, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                        uint64_t, uint64_t);
extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, on_block);
extern void qemu_plugin_register_vcpu_syscall_cb(plugin_id, on_call);
extern size_t qemu_plugin_tb_n_insns(const struct block *);
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct block *, int, void *, uint64_t);

int qemu_plugin_version = 1;

static const int ADD = 0;
/* Number of the call on aarch64. */
static const int64_t WRITE = 64;
static uint64_t instructions;
static FILE *out;

static void translated(plugin_id id, struct block *block) {
  qemu_plugin_register_vcpu_tb_exec_inline(block, ADD, &instructions, qemu_plugin_tb_n_insns(block));
}

static void called(plugin_id id, unsigned cpu, int64_t call, uint64_t file, uint64_t a2, uint64_t a3, uint64_t a4,
                   uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
  if (call == WRITE && file == 1) {
    fprintf(out, "%" PRIu64 "\n", instructions);
    fflush(out);
  }
}

int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
  if (argc != 1 || strncmp(argv[0], "out=", 4) != 0 || !(out = fopen(argv[0] + 4, "w"))) {
    fprintf(stderr, "count: give a file to write: out=FILE\n");
    return 1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_vcpu_syscall_cb(id, called);
  return 0;
}
