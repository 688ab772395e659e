/* The init of a container started with --init: starts the program, forwards signals to it, reaps
 * every orphan, ends with the program's exit code (128+n for signal n).
 *
 * Freestanding: no libc, no writable data, one page of code. scripts/build_reaper.py compiles it and
 * writes the result to reaper_programs.py; nothing of the toolchain is needed at run time.
 */

typedef unsigned long u64;

#if defined(__x86_64__)
enum { WRITE = 1, PROCMASK = 14, IOCTL = 16, GETPID = 39, CLONE = 56, EXECVE = 59, WAIT4 = 61,
       KILL = 62, SETPGID = 109, SIGTIMEDWAIT = 128, PRCTL = 157, EXIT = 231 };
static long call(long number, long a, long b, long c, long d)
{
	long result;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = 0;
	__asm__ volatile("syscall" : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return result;
}
__asm__(".globl _start\n_start:\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall run\n");
#elif defined(__aarch64__)
enum { IOCTL = 29, WRITE = 64, EXIT = 94, KILL = 129, PROCMASK = 135, SIGTIMEDWAIT = 137,
       SETPGID = 154, PRCTL = 167, GETPID = 172, CLONE = 220, EXECVE = 221, WAIT4 = 260 };
static long call(long number, long a, long b, long c, long d)
{
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = 0;
	__asm__ volatile("svc 0" : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
	return x0;
}
__asm__(".globl _start\n_start:\n\tmov x0, sp\n\tb run\n");
#else
#error "no system calls for this machine"
#endif

enum { SIGILL = 4, SIGTRAP = 5, SIGABRT = 6, SIGBUS = 7, SIGFPE = 8, SIGSEGV = 11, SIGCHLD = 17,
       SIGTTIN = 21, SIGTTOU = 22, SIGSYS = 31 };
enum { SIG_SETMASK = 2, WNOHANG = 1, TIOCSPGRP = 0x5410, EACCES = 13, ENOENT = 2, ENOTDIR = 20,
       PR_SET_NAME = 15, PATH_SIZE = 4096 };

#define BIT(signal) (1UL << ((signal) - 1))

/* Faults of this program itself must end it, not be waited for. */
static const u64 waited_for = ~(BIT(SIGILL) | BIT(SIGTRAP) | BIT(SIGABRT) | BIT(SIGBUS) |
				BIT(SIGFPE) | BIT(SIGSEGV) | BIT(SIGSYS));

static long length(const char *text)
{
	long n = 0;
	while (text[n])
		n++;
	return n;
}

static void say(const char *text)
{
	call(WRITE, 2, (long)text, length(text), 0);
}

static const char *search_path(char **env)
{
	for (; *env; env++) {
		const char *item = *env;
		if (item[0] == 'P' && item[1] == 'A' && item[2] == 'T' && item[3] == 'H' && item[4] == '=')
			return item + 5;
	}
	return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
}

/* Execute name from one directory of the search path; the errno if that fails. */
static long execute_in(const char *directory, long size, char **args, char **env)
{
	char path[PATH_SIZE];
	long n = length(args[0]), at = 0;
	if (size + n + 2 > PATH_SIZE)
		return ENOENT;
	for (; at < size; at++)
		path[at] = directory[at];
	if (size)
		path[at++] = '/';
	for (long i = 0; i <= n; i++)
		path[at + i] = args[0][i];
	return -call(EXECVE, (long)path, (long)args, (long)env, 0);
}

static long execute(char **args, char **env)
{
	for (const char *c = args[0]; *c; c++)
		if (*c == '/')
			return -call(EXECVE, (long)args[0], (long)args, (long)env, 0);
	long failure = ENOENT;
	for (const char *from = search_path(env);;) {
		long size = 0;
		while (from[size] && from[size] != ':')
			size++;
		long code = execute_in(from, size, args, env);
		if (code != ENOENT && code != ENOTDIR)
			failure = code;
		if (!from[size])
			return failure;
		from += size + 1;
	}
}

static void become_program(char **args, char **env, u64 mask)
{
	/* A group of its own, in front if there is a terminal: keys reach the program, not us. */
	call(SETPGID, 0, 0, 0, 0);
	int group = call(GETPID, 0, 0, 0, 0);
	call(IOCTL, 0, TIOCSPGRP, (long)&group, 0);
	call(PROCMASK, SIG_SETMASK, (long)&mask, 0, sizeof mask);
	long code = execute(args, env);
	say("exec ");
	say(args[0]);
	say(code == ENOENT ? ": no such file or directory\n" :
	    code == EACCES ? ": permission denied\n" : ": failed\n");
	call(EXIT, code == ENOENT ? 127 : 126, 0, 0, 0);
}

/* Reap all that has ended; end with the program's code when it is among them. */
static void reap(long program)
{
	long pid, code = -1;
	int status;
	while ((pid = call(WAIT4, -1, (long)&status, WNOHANG, 0)) > 0)
		if (pid == program)
			code = status & 0x7f ? 128 + (status & 0x7f) : status >> 8 & 0xff;
	if (code >= 0)
		call(EXIT, code, 0, 0, 0);
}

__attribute__((used, noreturn)) static void run(long *stack)
{
	long argc = stack[0];
	char **args = (char **)(stack + 1), **env = args + argc + 1;
	u64 all = waited_for, before = 0;
	if (argc < 3) {
		say("usage: docker-init -- program [argument...]\n");
		call(EXIT, 1, 0, 0, 0);
	}
	call(PRCTL, PR_SET_NAME, (long)"docker-init", 0, 0);
	call(PROCMASK, SIG_SETMASK, (long)&all, (long)&before, sizeof all);
	long program = call(CLONE, SIGCHLD, 0, 0, 0);
	if (program == 0)
		become_program(args + 2, env, before);
	if (program < 0) {
		say("docker-init: fork failed\n");
		call(EXIT, 1, 0, 0, 0);
	}
	for (;;) {
		long signal = call(SIGTIMEDWAIT, (long)&all, 0, 0, sizeof all);
		if (signal == SIGCHLD)
			reap(program);
		else if (signal > 0 && signal != SIGTTIN && signal != SIGTTOU)
			call(KILL, program, signal, 0, 0);
	}
}
