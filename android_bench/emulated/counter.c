/*
 * SPDX-License-Identifier: MIT
 *
 * Copyright (c) 2026 ShuffleLite contributors
 *
 * Permission is hereby granted, free of charge, to any person obtaining a copy of this software
 * and associated documentation files (the "Software"), to deal in the Software without
 * restriction, including without limitation the rights to use, copy, modify, merge, publish,
 * distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the
 * Software is furnished to do so, subject to the following conditions:
 *
 * The above copyright notice and this permission notice shall be included in all copies or
 * substantial portions of the Software.
 *
 * THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING
 * BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
 * NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
 * DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
 * OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
 *
 * Counts the A64 instructions that a guest of qemu-aarch64 executes, by class.  (This file alone
 * is under the MIT licence: it becomes one program with QEMU, whose licence is the GPL 2.)
 *
 *   qemu-aarch64 -plugin counter.so,fd=7 PROGRAM
 *
 * The guest marks the interval with getpriority, which changes nothing and which nobody else
 * calls: of a process it begins to count, of a process group it writes the counts to the file
 * descriptor, as one line of JSON.
 *
 * Build: gcc -shared -fPIC -O2 -o counter.so counter.c
 */

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is used of QEMU's plugin interface, since no package ships its header. */

struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { INLINE_ADD_U64 = 0 };

typedef void translated_cb(uint64_t id, struct qemu_plugin_tb *block);
typedef void syscall_cb(uint64_t id, unsigned vcpu, int64_t number, uint64_t a1, uint64_t a2,
                        uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7,
                        uint64_t a8);

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, translated_cb *callback);
void qemu_plugin_register_vcpu_syscall_cb(uint64_t id, syscall_cb *callback);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t index);

const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *instruction);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *block, int operation,
                                              void *counter, uint64_t addend);

struct qemu_info {
    const char *target_name;
    struct {
        int min;
        int cur;
    } version; /* more follows, which is not used */
};

#define EXPORT __attribute__((visibility("default")))

EXPORT int qemu_plugin_version = 1; /* QEMU 9.0 refuses it: the counters are others there */

/* Classes. */

enum class {
    DOT, MMLA, WIDENING_MULTIPLY, SIMD_MULTIPLY, SIMD_FLOAT, SIMD_OTHER,
    VECTOR_LOAD, VECTOR_STORE, SCALAR_LOAD, SCALAR_STORE, PREFETCH,
    INTEGER, BRANCH, SYSTEM, CLASSES
};

static const char *const names[CLASSES] = {
    "dot", "mmla", "widening_multiply", "simd_multiply", "simd_float", "simd_other",
    "vector_load", "vector_store", "scalar_load", "scalar_store", "prefetch",
    "integer", "branch", "system"
};

/* Bits `high` to `low` of an instruction, as the manual (Arm ARM, chapter C4) numbers them. */
static unsigned bits(uint32_t code, int high, int low)
{
    return (code >> low) & ((1u << (high - low + 1)) - 1);
}

static bool among(unsigned value, uint32_t set)
{
    return (set >> value) & 1;
}

#define SET(bit) (1u << (bit))

static enum class load_or_store(uint32_t code)
{
    bool vector = bits(code, 26, 26);
    unsigned size = bits(code, 31, 30), opc = bits(code, 23, 22);
    bool load;

    switch (bits(code, 29, 28)) {
    case 0: /* structures of vectors; exclusive and ordered */
    case 2: /* pairs */
        load = opc & 1;
        break;
    case 1:
        if (bits(code, 24, 24)) { /* ordered, unscaled offset */
            load = opc != 0;
        } else { /* literal */
            if (!vector && size == 3)
                return PREFETCH;
            load = true;
        }
        break;
    default:
        if (!vector && !bits(code, 24, 24) && bits(code, 21, 21) && bits(code, 11, 10) != 2)
            load = true; /* atomic operations, and pointers with authentication */
        else if (!vector && size == 3 && opc == 2)
            return PREFETCH;
        else
            load = vector ? opc & 1 : opc != 0;
    }
    if (vector)
        return load ? VECTOR_LOAD : VECTOR_STORE;
    return load ? SCALAR_LOAD : SCALAR_STORE;
}

static enum class by_element(uint32_t code)
{
    bool unsigned_ = bits(code, 29, 29);
    unsigned size = bits(code, 23, 22), opcode = bits(code, 15, 12);

    switch (opcode) {
    case 0x2: case 0x6: case 0xa:
        return WIDENING_MULTIPLY;
    case 0x3: case 0x7: case 0xb: /* sqdmlal, sqdmlsl, sqdmull; fcmla */
        return unsigned_ ? SIMD_FLOAT : WIDENING_MULTIPLY;
    case 0x0: case 0x4: /* mla, mls; fmlal, fmlsl */
        return unsigned_ ? SIMD_MULTIPLY : SIMD_FLOAT;
    case 0x8: case 0xc: /* mul, sqdmulh; fmlal2, fmlsl2 */
        return unsigned_ ? SIMD_FLOAT : SIMD_MULTIPLY;
    case 0xe: /* sdot, udot */
        return DOT;
    case 0xf: /* sqrdmlsh; sudot, usdot, bfdot, bfmlal */
        if (unsigned_)
            return SIMD_MULTIPLY;
        return size & 1 ? SIMD_FLOAT : DOT;
    case 0xd: /* sqrdmulh, sqrdmlah */
        return SIMD_MULTIPLY;
    default: /* 1, 5, 9: fmla, fmls, fmul, fmulx, fcmla */
        return SIMD_FLOAT;
    }
}

static enum class same_extra(uint32_t code) /* three registers, added after ARMv8.0 */
{
    switch (bits(code, 14, 11)) {
    case 0x0: case 0x1: /* sqrdmlah, sqrdmlsh */
        return SIMD_MULTIPLY;
    case 0x2: case 0x3: /* sdot, udot, usdot */
        return DOT;
    case 0x4: case 0x5: /* smmla, ummla, usmmla */
        return MMLA;
    default: /* fcmla, fcadd, bfdot, bfmmla, bfmlal */
        return SIMD_FLOAT;
    }
}

static enum class simd(uint32_t code)
{
    if (bits(code, 31, 31))
        return bits(code, 28, 28) ? SIMD_FLOAT : SIMD_OTHER; /* conversions; SHA-3, SM3, SM4 */
    if (bits(code, 28, 28)) {
        if (!bits(code, 30, 30))
            return SIMD_FLOAT;
        code &= ~SET(28); /* an operation on one element, encoded as on a vector */
    }
    if (bits(code, 24, 24)) {
        if (!bits(code, 10, 10))
            return by_element(code);
        /* shift by an immediate: scvtf and ucvtf, fcvtzs and fcvtzu; no shift: a constant */
        if (bits(code, 22, 19) && among(bits(code, 15, 11), SET(0x1c) | SET(0x1f)))
            return SIMD_FLOAT;
        return SIMD_OTHER;
    }
    if (bits(code, 21, 21)) {
        unsigned opcode = bits(code, 15, 11);

        if (bits(code, 10, 10)) { /* three of the same size */
            if (opcode >= 0x18)
                return SIMD_FLOAT;
            return among(opcode, SET(0x12) | SET(0x13) | SET(0x16)) ? SIMD_MULTIPLY : SIMD_OTHER;
        }
        if (!bits(code, 11, 11)) /* of different sizes: from smlal on, but for subhn and rsubhn */
            return bits(code, 15, 12) >= 0x8 ? WIDENING_MULTIPLY : SIMD_OTHER;
        opcode = bits(code, 16, 12);
        if (bits(code, 20, 17) == 0x0) /* two registers */
            return opcode >= 0x16 || (opcode >= 0xc && opcode <= 0xf) ? SIMD_FLOAT : SIMD_OTHER;
        if (bits(code, 20, 17) == 0xc) /* two registers, half precision */
            return SIMD_FLOAT;
        if (bits(code, 20, 17) == 0x8) /* over all elements, or over a pair */
            return among(opcode, SET(0xc) | SET(0xd) | SET(0xf)) ? SIMD_FLOAT : SIMD_OTHER;
        return SIMD_OTHER; /* AES, SHA */
    }
    if (bits(code, 15, 15) && bits(code, 10, 10))
        return same_extra(code);
    if (bits(code, 22, 22) && bits(code, 15, 14) == 0 && bits(code, 10, 10))
        return SIMD_FLOAT; /* three of the same size, half precision */
    return SIMD_OTHER;     /* copies, tables, permutations */
}

/* The class of an instruction, by its index; exported, like the names, for the tests. */
EXPORT unsigned instruction_class(uint32_t code)
{
    unsigned group = bits(code, 28, 25);

    if ((group & 0x5) == 0x4)
        return load_or_store(code);
    if ((group & 0xe) == 0x8 || (group & 0x7) == 0x5)
        return INTEGER;
    if ((group & 0xe) == 0xa)
        return bits(code, 31, 24) == 0xd4 || bits(code, 31, 22) == 0x354 ? SYSTEM : BRANCH;
    if ((group & 0x7) == 0x7)
        return simd(code);
    return group == 0x2 ? SIMD_OTHER : SYSTEM; /* SVE; reserved */
}

EXPORT const char *class_name(unsigned index)
{
    return index < CLASSES ? names[index] : NULL;
}

/* Counting. */

enum { GETPRIORITY = 141, OF_PROCESS = 0, OF_GROUP = 1 };

static uint64_t counts[CLASSES];
static int out = -1;

/* Guest code is translated in blocks that run from their first to their last instruction. */
static void translated(uint64_t id, struct qemu_plugin_tb *block)
{
    uint64_t inside[CLASSES] = {0};
    size_t size = qemu_plugin_tb_n_insns(block);

    (void)id;
    for (size_t i = 0; i < size; i++) {
        uint32_t code;

        memcpy(&code, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, i)), sizeof code);
        inside[instruction_class(code)]++;
    }
    for (int i = 0; i < CLASSES; i++)
        if (inside[i])
            qemu_plugin_register_vcpu_tb_exec_inline(block, INLINE_ADD_U64, &counts[i], inside[i]);
}

static void marked(uint64_t id, unsigned vcpu, int64_t number, uint64_t which, uint64_t who,
                   uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    (void)id, (void)vcpu, (void)who;
    (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number != GETPRIORITY)
        return;
    if (which == OF_PROCESS) {
        memset(counts, 0, sizeof counts);
    } else if (which == OF_GROUP) {
        char line[1024];
        int end = 0;

        for (int i = 0; i < CLASSES; i++)
            end += snprintf(line + end, sizeof line - end, "%s\"%s\": %" PRIu64,
                            i ? ", " : "{\"counted\": {", names[i], counts[i]);
        dprintf(out, "%s}}\n", line);
    }
}

EXPORT int qemu_plugin_install(uint64_t id, const struct qemu_info *info, int argc, char **argv)
{
    if (strcmp(info->target_name, "aarch64")) {
        fprintf(stderr, "counter: expected a guest of aarch64, got %s\n", info->target_name);
        return 1;
    }
    if (argc != 1 || strncmp(argv[0], "fd=", 3)) {
        fprintf(stderr, "counter: expected one argument, fd=NUMBER\n");
        return 1;
    }
    out = atoi(argv[0] + 3);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, marked);
    return 0;
}
