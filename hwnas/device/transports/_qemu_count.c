/*
 * Counts the instructions that an emulated thread executes: a plug-in of qemu-user, compiled when a sysroot is made.
 *
 * Whenever a thread gives the kernel advice on a file's byte MARK, which means nothing to the kernel, the number of its
 * instructions so far goes into that file, as a line. So hwnas/device/runner.py can count one inference and nothing else,
 * not even what the runtime does in the background.
 *
 * Debian 12 packages no qemu-plugin.h: what is used of it is declared here. That has not changed from qemu 4.2 to 10;
 * only the interface's number has, which the compiler is told as INTERFACE.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define MARK 0x68776e6173 /* runner.py's */
#define FADVISE64 223 /* on arm64 */
#define NO_REGISTERS 0

typedef uint64_t Id;
struct qemu_plugin_tb;

typedef void OnTranslated(Id, struct qemu_plugin_tb *);
typedef void OnExecuted(unsigned int, void *);
typedef void OnSystemCall(Id, unsigned int, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                          uint64_t, uint64_t);

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
void qemu_plugin_register_vcpu_tb_trans_cb(Id, OnTranslated *);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, OnExecuted *, int flags, void *);
void qemu_plugin_register_vcpu_syscall_cb(Id, OnSystemCall *);

int qemu_plugin_version = INTERFACE;
static _Thread_local uint64_t executed; /* each emulated thread is a thread here */

static void on_executed(unsigned int processor, void *instructions)
{
    executed += (uintptr_t)instructions;
}

static void on_translated(Id id, struct qemu_plugin_tb *block)
{
    void *instructions = (void *)qemu_plugin_tb_n_insns(block);
    qemu_plugin_register_vcpu_tb_exec_cb(block, on_executed, NO_REGISTERS, instructions);
}

static void on_system_call(Id id, unsigned int processor, int64_t number, uint64_t file, uint64_t offset, uint64_t a3,
                           uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    if (number == FADVISE64 && offset == MARK)
        dprintf((int)file, "%llu\n", (unsigned long long)executed);
}

int qemu_plugin_install(Id id, const void *info, int argc, char **argv)
{
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translated);
    qemu_plugin_register_vcpu_syscall_cb(id, on_system_call);
    return 0;
}
