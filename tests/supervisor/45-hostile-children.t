#!/usr/bin/env perl

# Programs that behave badly: neither the supervisor nor their siblings feel it.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Pod;

my %bad = (
	floods => 'my $x = ("y" x 99) . "\n"; note("floods"); print $x while 1;',
	floods_without_lines => 'my $x = "y" x 65536; note("floods_without_lines"); print $x while 1;',
	floods_zeros => 'my $x = "\0" x 65536; note("floods_zeros"); print STDERR $x while 1;',
	reads_stdin => 'my $n = sysread STDIN, my $x, 1; note("reads_stdin"); note("stdin gave " . ($n // $!)); sleep 1 while 1;',
	closes_its_pipes => 'close STDOUT; close STDERR; note("closes_its_pipes"); sleep 1 while 1;',
	closes_everything => 'use POSIX; POSIX::close($_) for 0 .. 255; note("closes_everything"); sleep 1 while 1;',
	double_forks => 'note("double_forks"); exit 0 if fork; setpgrp; note("daemon $$"); sleep 1000;',
	leaves_a_writer => 'if (!fork) { setpgrp; $SIG{TERM} = "IGNORE"; note("leaves_a_writer"); print "still here\n" while select(undef, undef, undef, 0.01) || 1 } sleep 1 while 1;',
	stops_itself => 'note("stops_itself"); kill STOP => $$; sleep 1 while 1;',
	kills_its_group => '$SIG{HUP} = "IGNORE"; note("kills_its_group"); kill HUP => 0; sleep 1 while 1;',
	signals_its_parent => 'kill $_ => getppid for qw(HUP USR1 USR2 WINCH PIPE CHLD CONT); note("signals_its_parent"); sleep 1 while 1;',
	lies_about_readiness => 'use Socket; socket my $s, AF_UNIX, SOCK_DGRAM, 0; for (1 .. 200) { send $s, "x" x 3000, 0, pack_sockaddr_un($ENV{NOTIFY_SOCKET} // "$T/supervisor.notify") } note("lies_about_readiness"); sleep 1 while 1;',
	crashes => 'note("crashes"); kill ABRT => $$; sleep 1 while 1;',
);

my $pod = Pod->new(sub {
	my ($pod) = @_;
	my $conf = "[supervisord]\noutput_prefix=always\n";
	for my $name (sort keys %bad) {
		my $command = $pod->script($name => $bad{$name});
		# Half of them to files, half to the supervisor's stderr (of this test: a file).
		my $to = $name =~ /flood/ ? "stdout_logfile=%(here)s/$name.log\nstderr_logfile=%(here)s/$name.err\nstdout_logfile_maxbytes=200KB\n"
			. "stderr_logfile_maxbytes=200KB\nstdout_logfile_backups=1\nstderr_logfile_backups=1\n" : '';
		$conf .= "[program:$name]\ncommand=$command\nstartsecs=0\nstopwaitsecs=0.5\nrestart_delay=1s\nstartretries=2\nautorestart=unexpected\n$to";
	}
	return $conf . "[program:sibling]\ncommand=sleep 1000\nstartsecs=0\n";
}, process => { exit => qr/^1$/, allow => qr/./ });

for my $name (sort keys %bad) {
	wait_for { grep { $_ eq $name } $pod->events } "$name to begin";
}
is((grep { $_ eq 'stdin gave 0' } $pod->events), 1, 'stdin is empty, not the supervisor\'s');
my ($sibling, $forked) = $pod->wait_state(sibling => 'RUNNING', double_forks => 'EXITED');
pass 'whoever forks into the background counts as ended, well';
is $sibling->{restarts}, 0, 'the sibling was never disturbed';
my @ms;
for (1 .. 5) {
	my $old = $sibling->{pid};
	my $begin = Time::HiRes::time();
	kill 'KILL', $old;
	wait_for { ($sibling) = $pod->wait_state(sibling => 'RUNNING'); $sibling->{pid} != $old } 'the sibling again';
	push @ms, (Time::HiRes::time() - $begin) * 1000;
}
cmp_ok((sort { $a <=> $b } @ms)[0], '<', 500, sprintf 'its restart takes %.0f to %.0f ms among all this', (sort { $a <=> $b } @ms)[ 0, -1 ]);
my ($code, $out) = $pod->ctl('status');
like $out, qr/^sibling\s+RUNNING/m, 'podctl answers';
cmp_ok rss_kb($pod->process->pid), '<', instrumented() ? 300_000 : 8000, 'KB of memory';
for my $log (map { glob } $pod->path('*.log*'), $pod->path('*.err*')) {
	cmp_ok -s $log, '<', 300_000, "$log is bounded";
}
my ($daemon) = map { /^daemon (\d+)/ } $pod->events;
ok -e "/proc/$daemon", 'what forked into the background lives';
my $begin = Time::HiRes::time();
is $pod->stop >> 8, 1, 'the pod stops; some had to be killed';
cmp_ok Time::HiRes::time() - $begin, '<', 15, 'in time';
ok !-e "/proc/$daemon", 'and nothing is left';

done_testing;
