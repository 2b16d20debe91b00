package EG::Loop;

# A small event loop for test peers: descriptors, timers, thousands of connections. One select(2)
# over bit vectors a turn, and only the descriptors that are ready are looked at.
#
#   my $loop = EG::Loop->new;
#   $loop->on_read($fh, sub { ... });   # undef removes
#   $loop->on_write($fh, sub { ... });
#   my $id = $loop->after(0.5, sub { ... });
#   $loop->cancel($id);
#   $loop->run;                         # until stop()

use strict;
use warnings;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

sub new
{
	my ($class) = @_;
	return bless {
		read => {}, write => {}, rvec => '', wvec => '', timers => {}, next_id => 1, stop => 0,
	}, $class;
}

sub now { return clock_gettime(CLOCK_MONOTONIC) }

sub on_read  { my ($self, $fh, $cb) = @_; $self->_watch('read', 'rvec', $fh, $cb); return }
sub on_write { my ($self, $fh, $cb) = @_; $self->_watch('write', 'wvec', $fh, $cb); return }

sub _watch
{
	my ($self, $table, $vec, $fh, $cb) = @_;
	my $fd = fileno $fh;
	return if !defined $fd;
	if ($cb) {
		$self->{$table}{$fd} = $cb;
		vec($self->{$vec}, $fd, 1) = 1;
	} elsif (delete $self->{$table}{$fd}) {
		vec($self->{$vec}, $fd, 1) = 0;
	}
	return;
}

# Call before close(), so that the descriptor's next owner is not mistaken for this one.
sub forget { my ($self, $fh) = @_; $self->on_read($fh); $self->on_write($fh); return }

sub after
{
	my ($self, $seconds, $cb) = @_;
	my $id = $self->{next_id}++;
	$self->{timers}{$id} = [ now() + $seconds, $cb ];
	return $id;
}

sub cancel { my ($self, $id) = @_; delete $self->{timers}{$id} if defined $id; return }
sub stop { $_[0]{stop} = 1; return }

# One turn, waiting at most $max_wait seconds (undef: until something happens).
sub turn
{
	my ($self, $max_wait) = @_;
	my $wait = $max_wait;
	if (%{ $self->{timers} }) {
		my $first;
		for (values %{ $self->{timers} }) {
			$first = $_->[0] if !defined $first || $_->[0] < $first;
		}
		my $left = $first - now();
		$left = 0 if $left < 0;
		$wait = $left if !defined $wait || $left < $wait;
	}
	my ($r, $w) = ($self->{rvec}, $self->{wvec});
	my $n = select($r, $w, undef, $wait);
	if ($n > 0) {
		for my $set ([ 'write', $w ], [ 'read', $r ]) {
			my $bits = unpack 'b*', $set->[1];
			while ($bits =~ /1/g) {
				my $cb = $self->{ $set->[0] }{ pos($bits) - 1 };
				$cb->() if $cb;
			}
		}
	}
	if (%{ $self->{timers} }) {
		my $now = now();
		for my $id (sort { $a <=> $b } keys %{ $self->{timers} }) {
			my $timer = $self->{timers}{$id} or next;
			next if $timer->[0] > $now;
			delete $self->{timers}{$id};
			$timer->[1]->();
		}
	}
	return;
}

sub run
{
	my ($self) = @_;
	$self->{stop} = 0;
	$self->turn until $self->{stop};
	return;
}

1;
